/* SPDX-License-Identifier: MIT */
/* property_keyed.c - a limit per key against as many plain limiters, with keys that are held.
 *
 * Two engines hear the same: in one there is a keyed limiter, in the other everybody has a gcra of
 * its own, which neap_gcra_hold holds and neap_gcra_change changes. Whatever comes, both answer the
 * same and end the same tickets at the same instants. Where words lie, in the table, the one before
 * it or beside both, and when they move, the plain ones do not know.
 *
 * In a table that is full a stranger may be turned away: then it is new to the plain ones, too, and
 * they are not asked. So nobody who owes anything, or is held, is ever forgotten.
 */
#include "neap.h"
#include "trial.h"

#include <string.h>

enum { KEYS = 12, GRANTS = 32, TICKETS = 64 };

struct grant {
	int key;
	int64_t cost;
	neap_ns at;
};

struct ticket {
	int64_t engine, plain;   /* what each calls it */
	int key;
	int64_t cost;
};

struct pair {
	struct neap_engine *engine, *plain;
	struct neap_keyed *k;
	struct neap_limiter keyed, one[KEYS];
	struct neap_term term, terms[KEYS];
	struct neap_all all, alls[KEYS];
	uint64_t hash[KEYS];
	int64_t amount, burst, count_max;
	neap_ns period, now, until[KEYS];   /* of the latest hold; -1: there was none */
	struct grant grant[GRANTS];
	int grants, tickets;
	struct ticket ticket[TICKETS];
};

/* ---- both ---- */

static void any_rate(struct dice *d, struct pair *p)
{
	p->amount = dice_any_size(d, 1, 50);
	p->period = dice_any_size(d, 100, 20000);
	p->burst = dice_any_size(d, 1, 20);
}

static void like_new(const struct pair *p, struct neap_limiter *l)
{
	memset(l, 0, sizeof *l);
	l->kind = NEAP_GCRA;
	if (neap_gcra_init(&l->as.gcra, p->amount, p->period, p->burst))
		trial_fail("a rate that does not fit");
}

static void open_both(struct dice *d, struct pair *p, int64_t count_max, int full, neap_ns idle_ns)
{
	static const uint8_t secret[16] = {7};
	memset(p, 0, sizeof *p);
	p->count_max = count_max;
	p->now = dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, INT64_C(1) << 50);
	any_rate(d, p);
	struct neap_limiter like;
	like_new(p, &like);
	p->k = neap_keyed_open(&like, count_max, full, idle_ns, secret);
	p->engine = neap_engine_open(TICKETS, p->now);
	p->plain = neap_engine_open(TICKETS, p->now);
	if (!p->k || !p->engine || !p->plain)
		trial_fail("no memory");
	p->keyed.kind = NEAP_KEYED;
	p->keyed.as.keyed = p->k;
	p->term = (struct neap_term){&p->keyed, 1, 0, 0};
	neap_all_init(&p->all, &p->term, 1);
	for (int i = 0; i < KEYS; i++) {
		like_new(p, &p->one[i]);
		p->terms[i] = (struct neap_term){&p->one[i], 1, 0, 0};
		neap_all_init(&p->alls[i], &p->terms[i], 1);
		p->hash[i] = dice_throw(d);
		p->until[i] = -1;
	}
}

static void close_both(struct pair *p)
{
	neap_engine_close(p->engine);
	neap_engine_close(p->plain);
	neap_keyed_close(p->k);
}

static struct neap_request request(const struct pair *p, int key, int64_t cost, neap_ns deadline)
{
	return (struct neap_request){
		.all = &p->all, .deadline = deadline, .cost = {cost}, .key = {p->hash[key]}};
}

static struct neap_request plainly(const struct pair *p, struct neap_request r, int key)
{
	r.all = &p->alls[key];
	return r;
}

static int is_alive(const struct pair *p, int key, neap_ns now)
{
	return now < p->one[key].as.gcra.held || !neap_limiter_is_new(&p->one[key], now);
}

static int64_t count_alive(const struct pair *p, neap_ns now)
{
	int64_t count = 0;
	for (int i = 0; i < KEYS; i++)
		count += is_alive(p, i, now);
	return count;
}

/* Those whom a hold may have left a record. */
static int64_t count_held(const struct pair *p)
{
	int64_t count = 0;
	for (int i = 0; i < KEYS; i++)
		count += p->until[i] >= p->now || (p->until[i] >= 0 && is_alive(p, i, p->now - 1));
	return count;
}

/* Turned away, and rightly: it is new, and the places are taken. */
static int is_stranger(const struct pair *p, const struct neap_answer *a, int key)
{
	if (a->status != NEAP_SHED)
		return 0;
	if (is_alive(p, key, p->now))
		trial_fail("key %d owes something, or is held, and is turned away", key);
	if (count_alive(p, p->now) < p->count_max)
		trial_fail("key %d is turned away, and there is room", key);
	return 1;
}

static void same(const struct neap_answer *is, const struct neap_answer *was, int key)
{
	if (is->status != was->status || is->at != was->at)
		trial_fail("key %d: status %d at %ld, not %d at %ld", key, is->status, is->at,
			   was->status, was->at);
}

static void remember(struct pair *p, int key, int64_t cost, neap_ns at)
{
	if (p->grants < GRANTS)
		p->grant[p->grants++] = (struct grant){key, cost, at};
}

/* Order is of no importance: one call to the one is several to the other. */
static void drain(struct pair *p)
{
	struct neap_completion is, was[TICKETS];
	neap_engine_advance(p->engine, p->now);
	neap_engine_advance(p->plain, p->now);
	int64_t count = neap_engine_drain(p->plain, was, TICKETS);
	for (int64_t left = count; left > 0; left--) {
		if (!neap_engine_drain(p->engine, &is, 1))
			trial_fail("a ticket is open that has ended");
		struct ticket *t = p->ticket;
		while (t->engine != is.ticket)
			t++;
		const struct neap_completion *same = was;
		while (same < was + count && same->ticket != t->plain)
			same++;
		if (same == was + count || is.at != same->at || is.status != same->status)
			trial_fail("key %d: ends as %d at %ld, not %d at %ld", t->key, is.status, is.at,
				   same->status, same->at);
		if (is.status == NEAP_GRANTED)
			remember(p, t->key, t->cost, is.at);
		*t = p->ticket[--p->tickets];
	}
	if (neap_engine_drain(p->engine, &is, 1))
		trial_fail("a ticket ended that is open");
	if (neap_engine_next_due(p->engine) != neap_engine_next_due(p->plain))
		trial_fail("the next is due at another instant");
}

/* ---- what may happen ---- */

static void try(struct dice *d, struct pair *p, int key)
{
	struct neap_answer is, was;
	struct neap_request r = request(p, key, dice_between(d, 0, p->burst + 1), neap_never);
	struct neap_request q = plainly(p, r, key);
	neap_engine_peek(p->engine, &r, p->now, &is);
	if (is_stranger(p, &is, key))
		return;
	neap_engine_peek(p->plain, &q, p->now, &was);
	same(&is, &was, key);
	if (dice_between(d, 0, 3) == 0)
		return;
	neap_engine_try(p->engine, &r, p->now, &is);
	neap_engine_try(p->plain, &q, p->now, &was);
	same(&is, &was, key);
	if (is.status == NEAP_GRANTED)
		remember(p, key, r.cost[0], p->now);
}

static void acquire(struct dice *d, struct pair *p, int key)
{
	struct neap_answer is = {0}, was = {0};
	neap_ns deadline = dice_between(d, 0, 1) ? neap_never : p->now + dice_between(d, 0, 30000);
	struct neap_request r = request(p, key, dice_between(d, 1, p->burst), deadline);
	struct neap_request q = plainly(p, r, key);
	if (neap_engine_acquire(p->engine, &r, p->now, &is))
		trial_fail("no memory");
	if (is_stranger(p, &is, key))
		return;
	if (neap_engine_acquire(p->plain, &q, p->now, &was))
		trial_fail("no memory");
	same(&is, &was, key);
	if (is.status == NEAP_GRANTED) {
		remember(p, key, r.cost[0], p->now);
	} else if (is.status == NEAP_WAITING) {
		p->ticket[p->tickets++] = (struct ticket){is.ticket, was.ticket, key, r.cost[0]};
	}
}

static void cancel(struct dice *d, struct pair *p)
{
	if (!p->tickets)
		return;
	const struct ticket *t = &p->ticket[dice_between(d, 0, p->tickets - 1)];
	if (!neap_engine_cancel(p->engine, t->engine, p->now) ||
	    !neap_engine_cancel(p->plain, t->plain, p->now))
		trial_fail("what is open cannot be cancelled");
}

static void hold(struct dice *d, struct pair *p, int key)
{
	int64_t tokens = dice_between(d, 0, p->burst + 2);
	neap_ns until = p->now + dice_between(d, -10, 3) * dice_any_size(d, 1, 10000);
	if (until < p->now)
		until = dice_between(d, 0, 1) ? p->now : p->now + dice_any_size(d, 1, 20000);
	int code = neap_keyed_hold(p->k, p->hash[key], tokens, until, p->now);
	if (code == NEAP_EFULL) {
		if (count_held(p) < p->count_max)
			trial_fail("key %d is not held, and there is room", key);
		return;
	}
	if (code)
		trial_fail("hold: %d", code);
	neap_engine_touch_key(p->engine, &p->keyed, p->hash[key], p->now);
	neap_limiter_hold(&p->one[key], tokens, until, p->now);
	neap_engine_touch(p->plain, &p->one[key], p->now);
	p->until[key] = until;
}

static void settle(struct dice *d, struct pair *p, int up_only)
{
	if (!p->grants)
		return;
	int i = (int)dice_between(d, 0, p->grants - 1);
	struct grant g = p->grant[i];
	p->grant[i] = p->grant[--p->grants];
	if (up_only && !is_alive(p, g.key, p->now))
		return;   /* a stranger again, for whom there may be no place */
	int64_t used = dice_between(d, up_only ? g.cost : 0, p->burst + 3);
	struct neap_request r = request(p, g.key, g.cost, neap_never), q = plainly(p, r, g.key);
	neap_engine_settle(p->engine, &r, &used, g.at, p->now);
	neap_engine_settle(p->plain, &q, &used, g.at, p->now);
}

static void forget(struct pair *p, int key)
{
	neap_keyed_forget(p->k, p->hash[key]);
	neap_engine_touch_key(p->engine, &p->keyed, p->hash[key], p->now);
	like_new(p, &p->one[key]);
	neap_engine_touch(p->plain, &p->one[key], p->now);
}

/* Of a key that is new the table keeps nothing, so where there is more room then it has all of that. */
static void change(struct dice *d, struct pair *p)
{
	int64_t burst = p->burst;
	any_rate(d, p);
	int keep = (int)dice_between(d, NEAP_KEEP_SPENT, NEAP_KEEP_NOTHING);
	if (keep == NEAP_KEEP_HELD && p->burst > burst)
		keep = NEAP_KEEP_SPENT;
	struct neap_limiter like;
	like_new(p, &like);
	if (neap_keyed_change(p->k, &like, keep, p->now))
		trial_fail("no change");
	for (int i = 0; i < KEYS; i++)
		neap_gcra_change(&p->one[i].as.gcra, p->amount, p->period, p->burst, keep, p->now);
	neap_engine_touch(p->engine, &p->keyed, p->now);
	for (int i = 0; i < KEYS; i++)
		neap_engine_touch(p->plain, &p->one[i], p->now);
}

static void look(struct pair *p, int key)
{
	struct neap_limiter seen;
	if (neap_keyed_look(p->k, p->hash[key], p->now, &seen))
		return;   /* a stranger, as _try finds out */
	int64_t is = neap_limiter_available(&seen, p->now);
	int64_t was = neap_limiter_available(&p->one[key], p->now);
	if (is != was)
		trial_fail("key %d has %ld, not %ld", key, is, was);
}

/* Any time later; often when a hold ends, or next to that. What was due before is done first. */
static void pass(struct dice *d, struct pair *p)
{
	neap_ns end = p->until[dice_between(d, 0, KEYS - 1)];
	neap_ns step = dice_between(d, 0, 2) ? 0 : dice_any_size(d, 1, 8000);
	if (end >= p->now && dice_between(d, 0, 2) == 0)
		step = end - p->now + dice_between(d, 0, 2) - 1;
	p->now += step > 0 ? step : 0;
	drain(p);
	if (dice_between(d, 0, 7) == 0 && neap_engine_check(p->engine))   /* it takes its time */
		trial_fail("an engine is corrupt");
}

/* ---- trials ---- */

static void is_as_plain_ones(struct dice *d)
{
	for (int64_t ops = trial_ops(40000); ops > 0;) {
		struct pair p;
		open_both(d, &p, 512, dice_between(d, 0, 1) ? NEAP_REFUSE : NEAP_SHARED, 0);
		for (int n = (int)dice_any_size(d, 1, 1000); n > 0; n--, ops--) {
			pass(d, &p);
			int key = (int)dice_between(d, 0, KEYS - 1);
			switch (dice_between(d, 0, 11)) {
			case 0: case 1: hold(d, &p, key); break;
			case 2: case 3: try(d, &p, key); break;
			case 4: cancel(d, &p); break;
			case 5: settle(d, &p, 0); break;
			case 6: if (dice_between(d, 0, 3) == 0) forget(&p, key); break;
			case 7: if (dice_between(d, 0, 9) == 0) change(d, &p); break;
			case 8: look(&p, key); break;
			default: acquire(d, &p, key);
			}
			drain(&p);
			int64_t is = neap_keyed_count(p.k, p.now), was = count_alive(&p, p.now);
			if (is != was)
				trial_fail("%ld keys, not %ld", is, was);
		}
		close_both(&p);
	}
}

static void forgets_nobody(struct dice *d)
{
	for (int64_t ops = trial_ops(40000); ops > 0;) {
		struct pair p;
		open_both(d, &p, dice_between(d, 1, 6), NEAP_REFUSE, 0);
		for (int n = (int)dice_any_size(d, 1, 1000); n > 0; n--, ops--) {
			pass(d, &p);
			int key = (int)dice_between(d, 0, KEYS - 1);
			switch (dice_between(d, 0, 9)) {
			case 0: case 1: hold(d, &p, key); break;
			case 2: case 3: case 4: try(d, &p, key); break;
			case 5: cancel(d, &p); break;
			case 6: settle(d, &p, 1); break;
			case 7: look(&p, key); break;
			default: acquire(d, &p, key);
			}
			drain(&p);
			if (neap_keyed_count(p.k, p.now) > 2 * p.count_max)
				trial_fail("%ld keys, and %ld may be", neap_keyed_count(p.k, p.now),
					   p.count_max);
		}
		close_both(&p);
	}
}

/* Others come and go, and make room for each other; who is held stays what it is. */
static void held_is_kept(struct dice *d)
{
	for (int64_t ops = trial_ops(200000); ops > 0;) {
		struct pair p;
		open_both(d, &p, dice_between(d, 1, 6), (int)dice_between(d, NEAP_REFUSE, NEAP_SHARED),
			  dice_between(d, 0, 1) ? 0 : 2000);
		for (int n = (int)dice_any_size(d, 1, 1000); n > 0; n--, ops--) {
			pass(d, &p);
			int key = (int)dice_between(d, 0, KEYS - 1);
			struct neap_limiter *own = &p.one[key];
			int64_t tokens = dice_between(d, 0, p.burst);
			if (dice_between(d, 0, 5) == 0) {
				neap_ns until = p.now + dice_any_size(d, 1, 20000);
				if (neap_keyed_look(p.k, p.hash[key], p.now, own))
					like_new(&p, own);
				if (neap_keyed_hold(p.k, p.hash[key], tokens, until, p.now))
					continue;
				neap_limiter_hold(own, tokens, until, p.now);
				p.until[key] = until;
				continue;
			}
			struct neap_answer is;
			struct neap_request r = request(&p, key, tokens, neap_never);
			neap_engine_try(p.engine, &r, p.now, &is);
			if (p.now > p.until[key])
				continue;
			neap_ns at = neap_limiter_take(own, tokens, p.now);
			if (is.at != at || (is.status == NEAP_GRANTED) != (at <= p.now))
				trial_fail("key %d: status %d at %ld, not at %ld", key, is.status, is.at,
					   at);
		}
		close_both(&p);
	}
}

static void cannot_hold_what_has_no_clock(struct dice *d)
{
	static const uint8_t secret[16] = {7};
	struct neap_limiter permits = {.kind = NEAP_SEMAPHORE}, own;
	neap_semaphore_init(&permits.as.semaphore, 5, 0);
	struct pair p;
	open_both(d, &p, 5, NEAP_REFUSE, 0);
	struct neap_keyed *k = neap_keyed_open(&permits, 5, NEAP_REFUSE, 0, secret);
	struct neap_keyed *none = neap_keyed_open(NULL, 5, NEAP_REFUSE, 0, secret);
	if (!k || !none)
		trial_fail("no memory");
	like_new(&p, &own);
	if (neap_keyed_hold(k, 1, 0, 9, 0) != NEAP_ERANGE ||
	    neap_keyed_hold(none, 1, 0, 9, 0) != NEAP_ERANGE)
		trial_fail("permits are held, or nothing");
	if (neap_keyed_set(none, 1, &own) || neap_keyed_hold(none, 1, 0, 9, 0) ||
	    own.as.gcra.held != 9)
		trial_fail("a limiter of its own is not held");
	neap_keyed_close(k);
	neap_keyed_close(none);
	close_both(&p);
}

int main(void)
{
	trial_run("a key that is held, or was, is as a plain limiter", is_as_plain_ones);
	trial_run("of those who were held nobody is forgotten who owes something", forgets_nobody);
	trial_run("who is held is kept while others make room", held_is_kept);
	trial_run("what has no clock is not held", cannot_hold_what_has_no_clock);
	return trial_verdict();
}

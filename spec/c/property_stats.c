/* SPDX-License-Identifier: MIT */
/* property_stats.c - the engine's counters against what its callers were told.
 *
 * Random traffic on a few alls; beside it a tally of every answer and every completion, and all
 * waits in a list that is sorted when a quantile is asked for.
 */
#include "neap.h"
#include "trial.h"

#include <stdlib.h>
#include <string.h>

enum { ALLS = 4, OPEN = 40, WAITS = 4000, HELD = 32 };

struct place {
	struct neap_limiter limiter[2];
	struct neap_term term[2];
	struct neap_all all;
	struct neap_stats stats, tally;
	struct neap_waits waits;
	neap_ns wait[WAITS];
	int waited;
};

struct open { int64_t ticket; int place; neap_ns since; };
struct held { int place; int64_t cost; neap_ns at; };

struct town {
	struct neap_engine *engine;
	struct place place[ALLS];
	struct open open[OPEN];
	struct held held[HELD];
	int opens, holds;
	neap_ns now;
};

static void any_limiter(struct dice *d, struct neap_limiter *l)
{
	l->kind = (int32_t)dice_between(d, NEAP_GCRA, NEAP_PAUSE);
	if (l->kind == NEAP_WINDOW)
		l->kind = NEAP_GCRA;
	if (l->kind == NEAP_GCRA)
		neap_gcra_init(&l->as.gcra, 1, dice_any_size(d, 1, INT64_C(1) << 34), dice_between(d, 1, 3));
	else if (l->kind == NEAP_SEMAPHORE)
		neap_semaphore_init(&l->as.semaphore, dice_between(d, 1, 3), 0);
	else
		neap_pause_init(&l->as.pause);
}

static void any_town(struct dice *d, struct town *t)
{
	memset(t, 0, sizeof *t);
	for (int i = 0; i < ALLS; i++) {
		struct place *p = &t->place[i];
		for (int n = 0; n < 2; n++) {
			any_limiter(d, &p->limiter[n]);
			p->term[n] = (struct neap_term){&p->limiter[n], dice_between(d, 0, 9) ? 1 : 4, 0, 0};
		}
		if (neap_all_init(&p->all, p->term, (int32_t)dice_between(d, 1, 2)) || p->all.stats)
			trial_fail("an all that is not, or counts already");
		p->all.stats = &p->stats;
		p->stats.waits = &p->waits;
	}
	t->engine = neap_engine_open((uint32_t)dice_between(d, 1, OPEN), 0);
	if (!t->engine)
		trial_fail("no memory");
}

/* ---- the tally ---- */

/* As the words are explained to users, by what binds. */
static int cause(const struct place *p, const struct neap_answer *a, neap_ns now)
{
	const struct neap_limiter *l = p->term[a->bound].limiter;
	if (a->status == NEAP_NEVER) {
		neap_ns one = neap_limiter_when(l, p->term[a->bound].multiplier, now);
		return one == neap_never ? NEAP_BY_CLOSED : NEAP_BY_COST;
	}
	if (a->ahead > 0)
		return NEAP_BY_LINE;
	return l->kind == NEAP_GCRA ? NEAP_BY_RATE : l->kind == NEAP_PAUSE ? NEAP_BY_PAUSE : NEAP_BY_BUSY;
}

static void hold(struct town *t, int place, int64_t cost, neap_ns at)
{
	if (t->holds < HELD)
		t->held[t->holds++] = (struct held){place, cost, at};
}

static void hear(struct town *t)
{
	struct neap_completion c;
	while (neap_engine_drain(t->engine, &c, 1)) {
		struct open *o = t->open;
		while (o->ticket != c.ticket)
			if (++o == t->open + t->opens)
				trial_fail("ticket %ld is not known", c.ticket);
		struct place *p = &t->place[o->place];
		p->tally.granted += c.status == NEAP_GRANTED;
		p->tally.waited += c.status == NEAP_GRANTED;
		p->tally.expired += c.status == NEAP_TIMEOUT;
		p->tally.cancelled += c.status == NEAP_CANCELLED;
		if (p->waited < WAITS)
			p->wait[p->waited++] = c.at - o->since;
		if (c.status == NEAP_GRANTED)
			hold(t, o->place, 1, c.at);
		*o = t->open[--t->opens];
	}
}

static int by_length(const void *a, const void *b)
{
	neap_ns x = *(const neap_ns *)a, y = *(const neap_ns *)b;
	return (x > y) - (x < y);
}

static void expect_wait(struct place *p, int64_t per_million)
{
	int64_t zeros = p->tally.at_once, count = zeros + p->waited;
	int64_t rank = (count * per_million + 999999) / 1000000;
	rank = rank > 1 ? rank : 1;
	neap_ns want = count == 0 || rank <= zeros ? 0 : p->wait[rank - zeros - 1];
	neap_ns got = neap_stats_wait(&p->stats, per_million), off = labs(got - want);
	if (off > (want < 1024 ? 512 : want / 8))
		trial_fail("%ld of a million wait %ld, not %ld", per_million, got, want);
}

static void expect_tally(struct place *p)
{
	struct neap_stats got = p->stats;
	got.waits = NULL;
	if (memcmp(&got, &p->tally, sizeof got))
		trial_fail("granted %ld waited %ld expired %ld at once %ld undone %ld up %ld down %ld, "
			   "not %ld %ld %ld %ld %ld %ld %ld", got.granted, got.waited, got.expired,
			   got.at_once, got.undone, got.settled_up, got.settled_down, p->tally.granted,
			   p->tally.waited, p->tally.expired, p->tally.at_once, p->tally.undone,
			   p->tally.settled_up, p->tally.settled_down);
	neap_ns sum = 0, max = 0;
	qsort(p->wait, (size_t)p->waited, sizeof *p->wait, by_length);
	for (int i = 0; i < p->waited; i++)
		sum += p->wait[i];
	max = p->waited ? p->wait[p->waited - 1] : 0;
	if (p->waits.count != p->waited || p->waits.sum_ns != sum || p->waits.max_ns != max)
		trial_fail("%ld waits of %ld, not %d of %ld", p->waits.count, p->waits.sum_ns, p->waited, sum);
	expect_wait(p, 0);
	expect_wait(p, 500000);
	expect_wait(p, 990000);
	expect_wait(p, 1000000);
}

/* ---- traffic ---- */

static void ask(struct dice *d, struct town *t)
{
	int i = (int)dice_between(d, 0, ALLS - 1);
	struct place *p = &t->place[i];
	struct neap_request r = {.all = &p->all, .cost = {dice_between(d, 0, 9) ? 1 : 4}};
	struct neap_answer a;
	r.deadline = dice_between(d, 0, 1) ? neap_never : t->now + dice_any_size(d, 1, INT64_C(1) << 40);
	if (!dice_between(d, 0, 3)) {
		neap_engine_peek(t->engine, &r, t->now, &a);   /* which counts nothing */
		neap_engine_try(t->engine, &r, t->now, &a);
	} else {
		if (neap_engine_acquire(t->engine, &r, t->now, &a))
			trial_fail("no memory");
		p->tally.at_once += a.status != NEAP_WAITING;
	}
	switch (a.status) {
	case NEAP_GRANTED:
		p->tally.granted++;
		hold(t, i, r.cost[0], a.at);
		break;
	case NEAP_WAITING: t->open[t->opens++] = (struct open){a.ticket, i, t->now}; break;
	case NEAP_TIMEOUT: p->tally.expired++; break;
	case NEAP_QUEUE_FULL: p->tally.queue_full++; break;
	default: p->tally.refused[cause(p, &a, t->now)]++;
	}
}

static void come_back(struct dice *d, struct town *t)
{
	if (!t->holds)
		return;
	struct held *h = &t->held[dice_between(d, 0, t->holds - 1)];
	struct place *p = &t->place[h->place];
	struct neap_request r = {.all = &p->all, .cost = {h->cost}};
	int64_t used[NEAP_COSTS] = {dice_between(d, 0, 2)};
	if (dice_between(d, 0, 1)) {
		neap_engine_settle(t->engine, &r, used, h->at, t->now);
		p->tally.settled_up += used[0] > h->cost;
		p->tally.settled_down += used[0] < h->cost && used[0] > 0;
		p->tally.undone += used[0] < h->cost && used[0] == 0;
		h->cost = used[0];
	} else {
		neap_engine_give(t->engine, &r, NEAP_SUCCESS, h->at, t->now);
		*h = t->held[--t->holds];
	}
}

static void counts_what_was_said(struct dice *d)
{
	static struct town t;
	for (int64_t ops = trial_ops(40000); ops > 0;) {
		any_town(d, &t);
		for (int i = 0; i < 400; i++, ops--) {
			t.now += dice_any_size(d, 1, dice_between(d, 0, 9) ? 1 << 20 : INT64_C(1) << 38);
			neap_engine_advance(t.engine, t.now);
			hear(&t);
			switch (dice_between(d, 0, 9)) {
			case 0: case 1: come_back(d, &t); break;
			case 2:
				if (t.opens)
					neap_engine_cancel(t.engine, t.open[dice_between(d, 0, t.opens - 1)].ticket, t.now);
				break;
			case 3: {
				struct neap_limiter *l = &t.place[dice_between(d, 0, ALLS - 1)].limiter[0];
				neap_ns until = dice_between(d, 0, 9) ? t.now + 5000 : neap_never;
				if (l->kind == NEAP_PAUSE)
					dice_between(d, 0, 1) ? neap_pause_clear(&l->as.pause)
							      : (void)neap_pause_extend(&l->as.pause, until);
				neap_engine_touch(t.engine, l, t.now);
				break;
			}
			default: ask(d, &t);
			}
			hear(&t);
			expect_tally(&t.place[i % ALLS]);
		}
		neap_engine_close(t.engine);
	}
}

static void buckets_join(struct dice *d)
{
	for (int32_t b = 0; b < NEAP_WAIT_BUCKETS - 1; b++) {
		struct neap_waits w = {0};
		neap_ns bound = neap_waits_bound(b);
		neap_waits_add(&w, bound - 1);
		neap_waits_add(&w, bound);
		neap_waits_add(&w, bound + dice_any_size(d, 1, neap_waits_bound(b + 1) - bound - 1));
		if (w.bucket[b] != 1 || w.bucket[b + 1] != 2)
			trial_fail("bucket %d does not end at %ld", b, bound);
	}
	if (neap_waits_bound(NEAP_WAIT_BUCKETS - 1) != neap_never ||
	    neap_waits_bound(0) != 1024 || neap_waits_bound(NEAP_WAIT_BUCKETS - 2) != INT64_C(1) << 50)
		trial_fail("the ends are elsewhere");
	struct neap_waits w = {0};
	struct neap_stats s = {.waits = &w};
	for (int i = 0; i < 4; i++)
		neap_waits_add(&w, INT64_MAX / 3);
	if (w.sum_ns != INT64_MAX || neap_stats_wait(&s, 1) != INT64_MAX / 3)
		trial_fail("centuries are not what they were");
}

int main(void)
{
	trial_run("counters say what callers were told", counts_what_was_said);
	trial_run("buckets join, and the last one holds all the rest", buckets_join);
	return trial_verdict();
}

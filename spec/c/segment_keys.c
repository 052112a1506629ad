/* SPDX-License-Identifier: MIT */
/* segment_keys.c - limits by key in a segment are what they are on the heap.
 *
 * The same random requests go to two engines, one with a table of its own and one with that of a
 * segment, which is mapped twice: all answers and completions are the same. Then what only a
 * segment has: names, bounds and generations.
 */
#define _GNU_SOURCE
#include "shared.h"
#include "trial.h"

#include <string.h>
#include <unistd.h>

enum { KEYS = 12, CALLS = 64, DRAIN = 64 };

static const neap_ns NOW = 1000000000, YEAR = INT64_C(31536000000000000);

static void same(const char *what, int64_t shared, int64_t heap)
{
	if (shared != heap)
		trial_fail("%s: %ld in the segment, %ld on the heap", what, shared, heap);
}

/* ---- as on the heap ---- */

/* One way to the tables: an engine, and by key's parity one of two handles. */
struct side {
	struct neap_engine *engine;
	struct neap_keyed *keyed[2];
	struct neap_limiter limiter[2];
	struct neap_term term[2];
	struct neap_all all[2];
};

struct call { struct neap_request request[2]; neap_ns at; int64_t cost; };

struct twins {
	struct side side[2];       /* on the heap; in the segment */
	struct neap_segment *segment[2];
	struct neap_limiter like;
	int64_t keys_max;
	int full;
	neap_ns idle_ns;
	struct call call[CALLS];
	int count;
	neap_ns now;
};

static void join(struct side *s, neap_ns now)
{
	s->engine = neap_engine_open(1000, now);
	for (int i = 0; i < 2; i++) {
		s->limiter[i] = (struct neap_limiter){.kind = NEAP_KEYED, .as.keyed = s->keyed[i]};
		s->term[i] = (struct neap_term){&s->limiter[i], 1, 0, 0};
		if (neap_all_init(&s->all[i], &s->term[i], 1))
			trial_fail("no such all");
	}
}

static struct neap_limiter some_rate(struct dice *d)
{
	return shared_rate(dice_any_size(d, 1, 1000), dice_any_size(d, 1000, 1000000000000),
		    dice_between(d, 1, 9));
}

static struct neap_limiter some_limit(struct dice *d, int permits)
{
	return permits ? shared_like(NEAP_SEMAPHORE, dice_between(d, 1, 9)) : some_rate(d);
}

static void open_twins(struct dice *d, struct twins *t)
{
	const uint8_t secret[16] = {1};
	*t = (struct twins){.like = some_limit(d, dice_between(d, 0, 2) == 0), .now = NOW};
	t->keys_max = dice_between(d, 0, 2) ? dice_between(d, 1, KEYS) : 100;
	t->full = (int)dice_between(d, NEAP_REFUSE, NEAP_SHARED);
	if (dice_between(d, 0, 2) == 0)
		t->idle_ns = dice_any_size(d, 1, 100000000000);
	t->segment[0] = shared_fresh(0);
	t->segment[1] = shared_open(NULL);
	/* keys of both handles share one table of the segment, so they have to on the heap */
	t->side[0].keyed[0] = t->side[0].keyed[1] =
		neap_keyed_open(&t->like, t->keys_max, t->full, t->idle_ns, secret);
	for (int i = 0; i < 2; i++) {
		t->side[1].keyed[i] = shared_keyed(t->segment[i], "keys", &t->like, t->keys_max,
						   t->full, 0);
		neap_keyed_idle(t->side[1].keyed[i], t->idle_ns);
	}
	join(&t->side[0], NOW);
	join(&t->side[1], NOW);
}

static void close_twins(struct twins *t)
{
	neap_keyed_close(t->side[0].keyed[0]);
	for (int i = 0; i < 2; i++) {
		neap_engine_close(t->side[i].engine);
		neap_keyed_close(t->side[1].keyed[i]);
		neap_segment_close(t->segment[i]);
	}
	unlink(shared_path());
}

static void ask(struct dice *d, struct twins *t)
{
	struct neap_answer a[2];
	int64_t n = dice_between(d, 0, KEYS - 1), cost = dice_between(d, 0, 4);
	int how = (int)dice_between(d, 0, 3);
	struct call call = {.at = t->now, .cost = cost};
	neap_ns deadline = dice_between(d, 0, 1) ? neap_never
						 : t->now + dice_any_size(d, 1, 1000000000000);
	for (int i = 0; i < 2; i++) {
		struct side *s = &t->side[i];
		call.request[i] = (struct neap_request){.all = &s->all[n & 1], .deadline = deadline,
							.cost = {cost}, .key = {shared_key(n)}};
		const struct neap_request *r = &call.request[i];
		if (how == 0)
			neap_engine_peek(s->engine, r, t->now, &a[i]);
		else if (how == 1)
			neap_engine_try(s->engine, r, t->now, &a[i]);
		else if (neap_engine_acquire(s->engine, r, t->now, &a[i]))
			trial_fail("no memory");
	}
	same("status", a[1].status, a[0].status);
	same("at", a[1].at, a[0].at);
	same("ticket", a[1].ticket, a[0].ticket);
	same("ahead", a[1].ahead, a[0].ahead);
	same("bound", a[1].bound, a[0].bound);
	if (a[0].status == NEAP_GRANTED && how && t->count < CALLS)
		t->call[t->count++] = call;
}

static void settle(struct dice *d, struct twins *t)
{
	if (!t->count)
		return;
	struct call c = t->call[dice_between(d, 0, t->count - 1)];
	const int64_t used[NEAP_COSTS] = {dice_between(d, 0, 5)};
	for (int i = 0; i < 2; i++)
		neap_engine_settle(t->side[i].engine, &c.request[i], used, c.at, t->now);
	t->count = 0;
}

static void give(struct dice *d, struct twins *t)
{
	if (!t->count || t->like.kind == NEAP_GCRA)
		return;
	int64_t n = dice_between(d, 0, t->count - 1);
	struct call c = t->call[n];
	for (int i = 0; i < 2; i++)
		neap_engine_give(t->side[i].engine, &c.request[i], NEAP_SUCCESS, c.at, t->now);
	t->call[n] = t->call[--t->count];
}

static void change(struct dice *d, struct twins *t)
{
	int keep = (int)dice_between(d, NEAP_KEEP_SPENT, NEAP_KEEP_NOTHING);
	int permits = t->like.kind == NEAP_SEMAPHORE;
	struct neap_limiter like = dice_between(d, 0, 3) ? some_limit(d, permits) : t->like;
	/* as new a limit may be, it is no change in a segment if it is the same */
	int is_same = !memcmp(&t->like.as, &like.as, permits ? sizeof like.as.semaphore
							       : sizeof like.as.gcra);
	/* nor is there a table at the bound that may have to leave some behind; and what the heap's
	 * carries over counts as seen then */
	if (!is_same && (t->keys_max < KEYS || t->idle_ns))
		return;
	if (!is_same && neap_keyed_change(t->side[0].keyed[0], &like, keep, t->now))
		trial_fail("the heap's is not changed");
	if (neap_keyed_change(t->side[1].keyed[dice_between(d, 0, 1)], &like, keep, t->now))
		trial_fail("it is not changed");
	t->like = like;
	for (int i = 0; i < 2; i++)
		for (int n = 0; n < 2; n++)
			neap_engine_touch(t->side[i].engine, &t->side[i].limiter[n], t->now);
}

static void look(struct dice *d, struct twins *t)
{
	int64_t n = dice_between(d, 0, KEYS - 1);
	struct neap_limiter l[2];
	int status[2];
	for (int i = 0; i < 2; i++)
		status[i] = neap_keyed_look(t->side[i].keyed[n & 1], shared_key(n), t->now, &l[i]);
	same("look", status[1], status[0]);
	if (!status[0])
		same("available", neap_limiter_available(&l[1], t->now),
		     neap_limiter_available(&l[0], t->now));
	same("count", neap_keyed_count(t->side[1].keyed[n & 1], t->now),
	     neap_keyed_count(t->side[0].keyed[n & 1], t->now));
	if (dice_between(d, 0, 3) == 0)
		for (int i = 0; i < 2; i++) {
			neap_keyed_forget(t->side[i].keyed[n & 1], shared_key(n));
			neap_engine_touch(t->side[i].engine, &t->side[i].limiter[n & 1], t->now);
		}
}

static void advance(struct dice *d, struct twins *t)
{
	struct neap_completion c[2][DRAIN];
	int64_t n[2];
	t->now += dice_between(d, 0, 1) ? dice_any_size(d, 1, 100000000000) : dice_between(d, 0, 2);
	for (int i = 0; i < 2; i++)
		neap_engine_advance(t->side[i].engine, t->now);
	do {
		for (int i = 0; i < 2; i++)
			n[i] = neap_engine_drain(t->side[i].engine, c[i], DRAIN);
		same("completions", n[1], n[0]);
		for (int64_t i = 0; i < n[0]; i++) {
			same("its ticket", c[1][i].ticket, c[0][i].ticket);
			same("its end", c[1][i].status, c[0][i].status);
			same("its instant", c[1][i].at, c[0][i].at);
		}
	} while (n[0]);
}

static void as_on_the_heap(struct dice *d)
{
	for (int64_t worlds = trial_ops(1500); worlds > 0; worlds--) {
		struct twins t;
		open_twins(d, &t);
		for (int64_t steps = dice_between(d, 10, 400); steps > 0; steps--) {
			switch (dice_between(d, 0, 9)) {
			case 0: dice_between(d, 0, 1) ? settle(d, &t) : give(d, &t); break;
			case 1: look(d, &t); break;
			case 2: case 3: advance(d, &t); break;
			case 4: change(d, &t); break;
			default: ask(d, &t);
			}
			if (steps % 50 == 0)
				shared_whole(t.segment[0]);
		}
		shared_whole(t.segment[1]);
		close_twins(&t);
	}
}

/* ---- names, bounds, generations ---- */

static void names_and_bounds(struct dice *d)
{
	struct neap_limiter like = shared_rate(1, YEAR, 5), other = shared_rate(1, YEAR, 7), *l;
	struct neap_limiter permits = shared_like(NEAP_SEMAPHORE, INT64_C(1) << 48);
	struct neap_limiter window = shared_like(NEAP_WINDOW, 3);
	struct neap_keyed *k = NULL, *o;
	struct neap_segment *s = shared_fresh(30000);
	(void)d;
	shared_told("too many permits", neap_segment_keyed(s, "a", &permits, 10, 0, 0, 0, NOW, &k),
		    NEAP_ERANGE);
	shared_told("a window", neap_segment_keyed(s, "a", &window, 10, 0, 0, 0, NOW, &k), NEAP_ERANGE);
	shared_told("no such rule", neap_segment_keyed(s, "a", &like, 10, 3, 0, 0, NOW, &k), NEAP_ERANGE);
	shared_told("no keys", neap_segment_keyed(s, "a", &like, 0, 0, 0, 0, NOW, &k), NEAP_ERANGE);
	shared_told("too many", neap_segment_keyed(s, "a", &like, 5000, 0, 0, 0, NOW, &k), NEAP_EFULL);
	if (k)
		trial_fail("something was written");
	o = shared_keyed(s, "a", &like, 10, NEAP_REFUSE, 3);
	shared_told("a larger one", neap_segment_keyed(s, "a", &like, 11, 0, 0, 3, NOW, &k), NEAP_EFULL);
	shared_told("another, older", neap_segment_keyed(s, "a", &other, 4, 0, 0, 2, NOW, &k), 1);
	neap_keyed_close(k);
	shared_told("as one limiter", neap_segment_add(s, "a", &like, 0, 0, NOW, &l), NEAP_ERANGE);
	if (neap_segment_find(s, "a"))
		trial_fail("one of its keys' limiters was found");
	l = shared_add(s, "b", NEAP_GCRA, 5);
	shared_told("a limiter as a table", neap_segment_keyed(s, "b", &l[0], 4, 0, 0, 0, NOW, &k),
		    NEAP_ERANGE);
	shared_told("another, newer", neap_segment_keyed(s, "a", &other, 4, 0, 0, 4, NOW, &k), 0);
	struct neap_segment_entry e;
	int32_t cursor = 0;
	neap_segment_next(s, &cursor, &e);
	shared_told("keys", e.keys_max, 10);
	shared_told("its limit", neap_limiter_capacity(&e.limiter), 7);
	neap_keyed_look(o, 1, NOW, &e.limiter);
	shared_told("of a key", neap_limiter_capacity(&e.limiter), 7);
	uint8_t secret[2][16];
	struct neap_segment *again = shared_open(NULL);
	neap_segment_secret(s, secret[0]);
	neap_segment_secret(again, secret[1]);
	shared_told("the secret is another", memcmp(secret[0], secret[1], 16) != 0, 0);
	shared_whole(s);
	neap_keyed_close(k);
	neap_keyed_close(o);
	neap_segment_close(again);
	neap_segment_close(s);
	unlink(shared_path());
}

int main(void)
{
	trial_run("a table of a segment answers as one on the heap", as_on_the_heap);
	trial_run("names, bounds and generations hold", names_and_bounds);
	return trial_verdict();
}

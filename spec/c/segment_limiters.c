/* SPDX-License-Identifier: MIT */
/* segment_limiters.c - limiters in a segment are what they are on the heap, and belong to all.
 *
 * The same random calls go to a limiter on the heap and to its like in a segment, which is mapped
 * twice and used through both, and changes under it now and then; all answers are the same. Then
 * what only a segment has: names, generations, holders, and looking from outside.
 */
#define _GNU_SOURCE
#include "shared.h"
#include "trial.h"

#include <string.h>
#include <unistd.h>

static const int kinds[] = {NEAP_GCRA, NEAP_SEMAPHORE, NEAP_WINDOW, NEAP_PAUSE, NEAP_BREAKER,
			    NEAP_ADAPTIVE};

enum { KINDS = 6, CALLS = 64 };

static const neap_ns NOW = 1000000000;

static void fresh(void) { unlink(shared_path()); }

static void whole(struct neap_segment *s)
{
	if (neap_segment_check(s))
		trial_fail("an invariant does not hold");
}

/* ---- as on the heap ---- */

/* A limiter with a log of its own. */
static struct neap_limiter on_heap(int kind, int64_t limit)
{
	static struct neap_stamp log[1000];
	static int64_t memory[1000];
	struct neap_limiter l = shared_like(kind, limit);
	if (kind == NEAP_WINDOW)
		l.as.window.log = log;
	if (kind == NEAP_BREAKER)
		l.as.breaker.memory = memory;
	return l;
}

struct call { int64_t cost; neap_ns at; };

struct twins {
	struct neap_limiter heap;
	struct neap_limiter *shared[2];   /* by two mappings */
	struct call call[CALLS];
	int count;
	neap_ns now;
};

static void same(const char *what, int64_t shared, int64_t heap)
{
	if (shared != heap)
		trial_fail("%s: %ld in the segment, %ld on the heap", what, shared, heap);
}

/* Permits belong to a mapping's record, so what was taken by one is given back by the same. */
static struct neap_limiter *either(struct dice *d, struct twins *t)
{
	int permits = t->heap.kind == NEAP_SEMAPHORE || t->heap.kind == NEAP_ADAPTIVE;
	return t->shared[permits ? 0 : dice_between(d, 0, 1)];
}

static void take(struct dice *d, struct twins *t, struct neap_limiter *l)
{
	int64_t cost = dice_between(d, 0, 3);
	struct neap_term a = {l, 1, 0, 0}, b = {&t->heap, 1, 0, 0};
	struct neap_all shared, heap;
	neap_all_init(&shared, &a, 1);
	neap_all_init(&heap, &b, 1);
	const int64_t costs[NEAP_COSTS] = {cost};
	int32_t bound_a, bound_b;
	neap_ns at;
	switch (dice_between(d, 0, 2)) {
	case 0:
		at = neap_limiter_take(&t->heap, cost, t->now);
		same("take", neap_limiter_take(l, cost, t->now), at);
		break;
	case 1:
		at = neap_all_take(&heap, costs, t->now, &bound_b);
		same("all take", neap_all_take(&shared, costs, t->now, &bound_a), at);
		same("bound", bound_a, bound_b);
		break;
	default:
		at = neap_all_claim(&heap, costs, t->now, &bound_b);
		same("all claim", neap_all_claim(&shared, costs, t->now, &bound_a), at);
		same("bound", bound_a, bound_b);
	}
	if (at <= t->now && cost && t->count < CALLS)
		t->call[t->count++] = (struct call){cost, t->now};
}

static void end(struct dice *d, struct twins *t, struct neap_limiter *l)
{
	if (!t->count)
		return;
	int i = (int)dice_between(d, 0, t->count - 1);
	struct call c = t->call[i];
	if (dice_between(d, 0, 1)) {
		int outcome = (int)dice_between(d, NEAP_SUCCESS, NEAP_IGNORE);
		t->call[i] = t->call[--t->count];
		neap_limiter_give(&t->heap, c.cost, outcome, c.at, t->now);
		neap_limiter_give(l, c.cost, outcome, c.at, t->now);
		return;
	}
	int64_t used = dice_between(d, 0, 4);
	neap_limiter_settle(&t->heap, c.cost, used, c.at, t->now);
	neap_limiter_settle(l, c.cost, used, c.at, t->now);
	t->call[i].cost = used;
	if (!used)
		t->call[i] = t->call[--t->count];
}

static void hold(struct dice *d, struct twins *t, struct neap_limiter *l)
{
	int64_t tokens = dice_between(d, 0, 5);
	neap_ns until = t->now + dice_between(d, -10, 1000000000);
	same("hold", neap_limiter_hold(l, tokens, until, t->now),
	     neap_limiter_hold(&t->heap, tokens, until, t->now));
}

static void look(struct dice *d, const struct twins *t, const struct neap_limiter *l)
{
	int64_t cost = dice_between(d, 0, 12), ahead = dice_between(d, 0, 12);
	same("when", neap_limiter_when(l, cost, t->now), neap_limiter_when(&t->heap, cost, t->now));
	same("available", neap_limiter_available(l, t->now), neap_limiter_available(&t->heap, t->now));
	same("capacity", neap_limiter_capacity(l), neap_limiter_capacity(&t->heap));
	same("is new", neap_limiter_is_new(l, t->now), neap_limiter_is_new(&t->heap, t->now));
	same("after", neap_limiter_after(l, ahead, cost, t->now),
	     neap_limiter_after(&t->heap, ahead, cost, t->now));
}

static void twins(struct dice *d, struct neap_segment *s, struct neap_segment *again, int kind)
{
	char name[NEAP_NAME_BYTES] = "a";
	int64_t limit = dice_between(d, 2, 10);
	name[0] = (char)('a' + kind);
	struct twins t = {.heap = on_heap(kind, limit), .now = NOW};
	t.shared[0] = shared_add(s, name, kind, limit);
	t.shared[1] = neap_segment_find(again, name);
	for (int64_t i = trial_ops(20000); i > 0; i--) {
		struct neap_limiter *l = either(d, &t);
		t.now += dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, 300000000);
		switch (dice_between(d, 0, 9)) {
		case 0: hold(d, &t, l); break;
		case 1: case 2: case 3: end(d, &t, l); break;
		case 4: case 5: look(d, &t, l); break;
		default: take(d, &t, l);
		}
		if (kind == NEAP_PAUSE && dice_between(d, 0, 99) == 0) {
			neap_pause_extend(&t.heap.as.pause, t.now + 1000);
			neap_pause_extend(&l->as.pause, t.now + 1000);
		}
		if (i % 16 == 0)
			whole(s);
	}
}

static void as_on_the_heap(struct dice *d)
{
	fresh();
	struct neap_segment *s = shared_open(NULL), *again = shared_open(NULL);
	for (int k = 0; k < KINDS; k++)
		twins(d, s, again, kinds[k]);
	neap_segment_close(again);
	neap_segment_close(s);
}

/* All kinds at once: each refusal leaves all the others as they were. */
static void all_or_none(struct dice *d)
{
	fresh();
	struct neap_segment *s = shared_open(NULL);
	struct neap_term term[KINDS];
	struct neap_all all;
	for (int k = 0; k < KINDS; k++) {
		char name[2] = {(char)('a' + k), 0};
		struct neap_limiter *l = shared_add(s, name, kinds[k], 5 + k);
		term[k] = (struct neap_term){l, 1, k == 3 ? 1 : 0, 0};
	}
	for (int k = 0; k < KINDS; k++) {   /* any order of terms */
		int other = (int)dice_between(d, 0, k);
		struct neap_term swap = term[k];
		term[k] = term[other];
		term[other] = swap;
	}
	neap_all_init(&all, term, KINDS);
	const int64_t one[NEAP_COSTS] = {1, 1};
	for (int i = 0; i < 5; i++)
		if (neap_all_take(&all, one, NOW, NULL) != NOW)
			trial_fail("take %d of 5 is refused", i);
	int32_t bound = -1;
	if (neap_all_take(&all, one, NOW, &bound) <= NOW || bound < 0)
		trial_fail("a sixth goes");
	for (int k = 0; k < KINDS; k++) {
		const struct neap_limiter *l = term[k].limiter;
		int64_t spent = neap_limiter_capacity(l) - neap_limiter_available(l, NOW);
		if (l->kind != NEAP_PAUSE && l->kind != NEAP_BREAKER &&
		    spent != 5)
			trial_fail("kind %d: %ld spent", l->kind, spent);
	}
	neap_all_give(&all, one, NEAP_SUCCESS, NOW, NOW);
	whole(s);
	neap_segment_close(s);
}

/* ---- names and generations ---- */

static int add(struct neap_segment *s, int kind, int64_t limit, int keep, int64_t generation,
	       struct neap_limiter **out)
{
	struct neap_limiter like = shared_like(kind, limit);
	return neap_segment_add(s, "name", &like, keep, generation, NOW, out);
}

static void generations(struct dice *d)
{
	(void)d;
	for (int k = 0; k < KINDS; k++) {
		if (kinds[k] == NEAP_PAUSE)
			continue;
		fresh();
		struct neap_segment *s = shared_open(NULL);
		struct neap_limiter *a = NULL, *b = NULL;
		same("first", add(s, kinds[k], 10, 0, 1, &a), 0);
		same("the same again", add(s, kinds[k], 10, 0, 1, &b), 0);
		neap_limiter_take(a, 3, NOW);
		same("newer", add(s, kinds[k], 20, NEAP_KEEP_SPENT, 2, &b), 0);
		if (a != b)
			trial_fail("another limiter");
		if (kinds[k] != NEAP_BREAKER) {
			same("capacity", neap_limiter_capacity(a), 20);
			same("available", neap_limiter_available(a, NOW),
			     kinds[k] == NEAP_ADAPTIVE ? 7 : 17);   /* its limit has yet to rise */
		}
		whole(s);
		same("older", add(s, kinds[k], 10, 0, 1, &b), 1);
		same("of one generation, other", add(s, kinds[k], 30, 0, 2, &b), 1);
		same("the same, newer", add(s, kinds[k], 20, 0, 5, &b), 0);
		same("between", add(s, kinds[k], 10, 0, 4, &b), 1);
		same("without", add(s, kinds[k], 10, 0, 0, &b), 0);
		if (kinds[k] != NEAP_BREAKER)
			same("capacity again", neap_limiter_capacity(a), 10);
		struct neap_segment_entry e;
		int32_t cursor = 0;
		same("next", neap_segment_next(s, &cursor, &e), 1);
		same("generation", e.generation, 6);
		same("another kind", add(s, kinds[(k + 1) % KINDS], 10, 0, 0, &b), NEAP_ERANGE);
		whole(s);
		neap_segment_close(s);
	}
}

static void keeps(struct dice *d)
{
	(void)d;
	const int64_t left[] = {16, 6, 12, 20};
	for (int keep = NEAP_KEEP_SPENT; keep <= NEAP_KEEP_NOTHING; keep++) {
		fresh();
		struct neap_segment *s = shared_open(NULL);
		struct neap_limiter *l;
		add(s, NEAP_GCRA, 10, 0, 1, &l);
		neap_limiter_take(l, 4, NOW);
		add(s, NEAP_GCRA, 20, keep, 2, &l);
		same("left", neap_limiter_available(l, NOW), left[keep]);
		neap_segment_close(s);
	}
}

/* A log grows and shrinks with what is in it; without room for it nothing changes. */
static void logs(struct dice *d)
{
	fresh();
	struct neap_segment *s = shared_open(&(struct neap_segment_options){.log_bytes = 65536});
	struct neap_limiter *l;
	add(s, NEAP_WINDOW, 4, 0, 1, &l);
	for (int i = 0; i < 4; i++)
		same("take", neap_limiter_take(l, 1, NOW + i), NOW + i);
	for (int64_t i = 2, limit; i < 200; i++) {
		limit = dice_between(d, 1, 400);
		same("change", add(s, NEAP_WINDOW, limit, 0, i, &l), 0);
		same("left", neap_limiter_available(l, NOW + 3), limit - 4);
		whole(s);
	}
	same("too much", add(s, NEAP_WINDOW, 100000, 0, 300, &l), NEAP_EFULL);
	struct neap_limiter like = shared_like(NEAP_WINDOW, 100000);
	same("too much anew", neap_segment_add(s, "new", &like, 0, 0, NOW, &l), NEAP_EFULL);
	same("as new", neap_limiter_is_new(neap_segment_find(s, "name"), NOW + 2000000000), 1);
	whole(s);
	neap_segment_close(s);
}

static void names(struct dice *d)
{
	(void)d;
	fresh();
	struct neap_segment *s = shared_open(&(struct neap_segment_options){.limiters_max = 3});
	struct neap_limiter like = shared_like(NEAP_PAUSE, 1), *l = NULL;
	char name[70];
	memset(name, 'x', sizeof name);
	name[64] = 0;
	same("64 bytes", neap_segment_add(s, name, &like, 0, 0, NOW, &l), NEAP_ERANGE);
	same("none", neap_segment_add(s, "", &like, 0, 0, NOW, &l), NEAP_ERANGE);
	name[63] = 0;
	same("63 bytes", neap_segment_add(s, name, &like, 0, 0, NOW, &l), 0);
	if (neap_segment_find(s, name) != l || neap_segment_find(s, "y"))
		trial_fail("find");
	shared_add(s, "b", NEAP_GCRA, 1);
	shared_add(s, "c", NEAP_GCRA, 1);
	same("full", neap_segment_add(s, "d", &like, 0, 0, NOW, &l), NEAP_EFULL);
	like.kind = NEAP_KEYED;
	same("keyed", neap_segment_add(s, "d", &like, 0, 0, NOW, &l), NEAP_ERANGE);
	struct neap_segment_stats stats;
	neap_segment_stats(s, &stats);
	same("limiters", stats.limiters, 3);
	same("limiters_max", stats.limiters_max, 3);
	same("log_used", stats.log_used, 0);
	neap_segment_close(s);
}

/* ---- holders ---- */

static void child_dies(struct neap_limiter *l, struct neap_limiter *a)
{
	pid_t pid = shared_fork();
	if (!pid) {   /* of what the parent holds nothing is given back by its child */
		neap_limiter_give(l, 3, NEAP_SUCCESS, NOW, NOW);
		if (neap_limiter_available(l, NOW) != 7)
			_exit(1);
		neap_limiter_settle(l, 3, 1, NOW, NOW);
		if (neap_limiter_available(l, NOW) != 7)
			_exit(2);
		neap_limiter_take(l, 5, NOW);
		neap_limiter_settle(l, 5, 6, NOW, NOW);
		neap_limiter_give(l, 2, NEAP_SUCCESS, NOW, NOW);
		neap_limiter_take(a, 7, NOW);
		_exit(0);
	}
	same("child", shared_wait(pid), 0);
}

static void holders(struct dice *d)
{
	(void)d;
	fresh();
	struct neap_segment *s = shared_open(NULL);
	struct neap_limiter *l = shared_add(s, "l", NEAP_SEMAPHORE, 10);
	struct neap_limiter *a = shared_add(s, "a", NEAP_ADAPTIVE, 10);
	struct neap_segment_entry e;
	struct neap_segment_stats stats;
	int32_t cursor = 0;
	neap_limiter_take(l, 3, NOW);
	for (int i = 0; i < 100; i++) {   /* more than there are records */
		child_dies(l, a);
		same("left", neap_limiter_available(l, NOW), 3);
		neap_segment_next(s, &cursor, &e);
		same("holders", e.holders, 2);
		same("reap", neap_segment_reap(s), 11);
		same("again", neap_segment_reap(s), 0);
		same("left then", neap_limiter_available(l, NOW), 7);
		same("adaptive", neap_limiter_available(a, NOW), 10);
		whole(s);
		cursor = 0;
	}
	neap_segment_stats(s, &stats);
	same("processes", stats.processes, 1);
	neap_limiter_give(l, 3, NEAP_SUCCESS, NOW, NOW);
	neap_segment_close(s);
	s = shared_open(NULL);
	neap_segment_stats(s, &stats);
	same("processes", stats.processes, 0);
	neap_segment_close(s);
}

/* With no record left permits are taken, given back, and stay out when their process dies. */
static void no_record(struct dice *d)
{
	(void)d;
	fresh();
	struct neap_segment *s = shared_open(&(struct neap_segment_options){.processes_max = 1});
	struct neap_limiter *l = shared_add(s, "l", NEAP_SEMAPHORE, 10);
	neap_limiter_take(l, 1, NOW);
	for (int i = 1; i < 4; i++) {
		pid_t pid = shared_fork();
		if (!pid) {
			neap_limiter_take(l, 3, NOW);
			neap_limiter_give(l, 2, NEAP_SUCCESS, NOW, NOW);
			_exit(0);
		}
		same("child", shared_wait(pid), 0);
		same("reap", neap_segment_reap(s), 0);
		same("left", neap_limiter_available(l, NOW), 9 - i);
		whole(s);
	}
	neap_segment_close(s);
}

static void inspects(struct dice *d)
{
	(void)d;
	fresh();
	struct neap_segment *s = shared_open(NULL), *look;
	const char *names[KINDS] = {"a", "b", "c", "d", "e", "f"};
	struct neap_limiter *l;
	for (int k = 0; k < KINDS; k++) {
		l = shared_add(s, names[k], kinds[k], 10);
		neap_limiter_take(l, 2, NOW);
	}
	look = shared_open(&(struct neap_segment_options){.how = NEAP_INSPECT});
	struct neap_segment_entry e;
	int32_t cursor = 0;
	for (int k = 0; k < KINDS; k++) {
		same("next", neap_segment_next(look, &cursor, &e), 1);
		same("kind", e.limiter.kind, kinds[k]);
		same("name", strcmp(e.name, names[k]), 0);
		same("available", neap_limiter_available(&e.limiter, NOW),
		     neap_limiter_available(neap_segment_find(s, e.name), NOW));
	}
	same("end", neap_segment_next(look, &cursor, &e), 0);
	struct neap_limiter like = shared_like(NEAP_GCRA, 1);
	same("find", neap_segment_find(look, "a") == NULL, 1);
	same("add", neap_segment_add(look, "x", &like, 0, 0, NOW, &l), NEAP_ERANGE);
	same("reap", neap_segment_reap(look), 0);
	neap_segment_close(look);
	neap_segment_close(s);
}

int main(void)
{
	trial_run("each kind answers as it does on the heap", as_on_the_heap);
	trial_run("all kinds at once are taken from, or none", all_or_none);
	trial_run("the newest generation's configuration holds, with the state there is", generations);
	trial_run("another rate keeps what it is told to", keeps);
	trial_run("logs grow as they are asked to", logs);
	trial_run("names have bounds", names);
	trial_run("permits of the dead come back, and belong to who took them", holders);
	trial_run("who finds no record can take and give all the same", no_record);
	trial_run("who inspects sees what there is and changes nothing", inspects);
	return trial_verdict();
}

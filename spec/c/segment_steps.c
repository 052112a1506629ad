/* SPDX-License-Identifier: MIT */
/* segment_steps.c - killed between any two writes.
 *
 * A child does one thing to a limiter, step by step, and it is noted after which steps the segment
 * is another than before. Then children do the same anew, and each is killed after one of those.
 * Whatever was under way, what others find is what was before or what would have been: the limiter,
 * its log or keys, its configuration, permits by holder. Then the same with one who is killed while
 * it undoes what a dead one left.
 *
 * Two tests are made of it, with two kinds of victims (victim.h). In segment_steps a step is an
 * instruction of the code that others use, which takes its time: the suite throws dice for some
 * of the points, and takes the last ones of each, where most is decided. In segment_writes a step is
 * a write, and each point is tried; of the points of those who undo some.
 *
 *     NEAP_OPS=100000000   ten times as many
 */
#define _GNU_SOURCE
#include "segment.h"
#include "shared.h"
#include "trial.h"
#include "victim.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PERMITS_HELD = 3, STEPS_MOST = 1000000, POINTS = 4000, LAST = 2, STATE = 400 };

static const neap_ns NOW = 1000000000, LATER = 1300000000, FULL = 2000000005;

static struct neap_segment *segment;
static struct neap_limiter *limiter;
static struct neap_keyed *keyed;   /* or NULL */
static struct neap_engine *engine;
static neap_ns seen_at;            /* when its keys are looked at */

/* ---- what may be under way ---- */

static void take(void) { neap_limiter_take(limiter, 2, LATER); }
static void give(void) { neap_limiter_give(limiter, 2, NEAP_FAILURE, NOW, LATER); }
static void settle_up(void) { neap_limiter_settle(limiter, 1, 3, NOW + 1, LATER); }
static void settle_down(void) { neap_limiter_settle(limiter, 1, 0, NOW + 1, LATER); }
static void enter_late(void) { neap_limiter_settle(limiter, 0, 2, NOW + 5, LATER); }
/* In a full log, of which some have left: what comes takes their places. */
static void take_full(void) { neap_limiter_take(limiter, 2, FULL); }
static void enter_full(void) { neap_limiter_settle(limiter, 0, 2, NOW + 7, FULL); }
static void enter_last(void) { neap_limiter_settle(limiter, 0, 2, NOW + 50, LATER); }
static void hold(void) { neap_limiter_hold(limiter, 3, LATER + 5000, LATER); }

static void change(void)
{
	int64_t limit = limiter->kind == NEAP_WINDOW ? 100 : 30;
	struct neap_limiter like = shared_like(limiter->kind, limit), *l;
	neap_segment_add(segment, "it", &like, NEAP_KEEP_SPENT, 0, LATER, &l);
}

static void lower(void)
{
	struct neap_limiter like = shared_like(limiter->kind, 9), *l;
	neap_segment_add(segment, "it", &like, NEAP_KEEP_SPENT, 0, LATER, &l);
}

static void make(void)
{
	struct neap_limiter like = shared_like(NEAP_WINDOW, 10), *l;
	neap_segment_add(segment, "another", &like, NEAP_KEEP_SPENT, 0, LATER, &l);
}

static void reap(void) { neap_segment_reap(segment); }

static void take_all(void)
{
	const struct neap_term term = {limiter, 1, 0, 0};
	const int64_t cost[NEAP_COSTS] = {1};
	struct neap_all all;
	neap_all_init(&all, &term, 1);
	neap_all_take(&all, cost, LATER, NULL);
}

/* ---- of a table of keys ---- */

enum { KEYS = 6 };

static uint64_t key_of(int n) { return (uint64_t)n * UINT64_C(0x9e3779b97f4a7c15); }

static struct neap_limiter keyed_term;
static struct neap_term term;
static struct neap_all all;

static void ask_key(int n, int64_t cost, neap_ns now)
{
	struct neap_request r = {.all = &all, .cost = {cost}, .key = {key_of(n)}};
	struct neap_answer a;
	neap_engine_try(engine, &r, now, &a);
	if (a.status != NEAP_GRANTED)
		_exit(78);
}

static void key_take(void) { ask_key(1, 2, LATER); }
static void key_new(void) { ask_key(5, 2, LATER); }
static void key_reuse(void) { ask_key(5, 2, FULL); }   /* of one that is refilled by then */
static void key_forget(void) { neap_keyed_forget(keyed, key_of(1)); }

static void key_settle(void)
{
	struct neap_request r = {.all = &all, .cost = {1}, .key = {key_of(2)}};
	neap_engine_settle(engine, &r, (const int64_t[NEAP_COSTS]){4}, NOW, LATER);
}

static void key_change(void)
{
	struct neap_limiter like = shared_like(NEAP_GCRA, 30);
	neap_keyed_change(keyed, &like, NEAP_KEEP_RATIO, LATER);
}

/* It was changed before: the next one who comes carries all words over. */
static void key_follow(void) { ask_key(1, 1, LATER); }

static void key_make(void)
{
	struct neap_limiter like = shared_like(NEAP_GCRA, 10);
	struct neap_keyed *k;
	neap_segment_keyed(segment, "another", &like, KEYS, NEAP_REFUSE, NEAP_KEEP_SPENT, 0, LATER, &k);
}

static void prepare_keys(int count)
{
	struct neap_limiter like = shared_like(NEAP_GCRA, 10);
	if (neap_segment_keyed(segment, "it", &like, 4, NEAP_REFUSE, NEAP_KEEP_SPENT, 0, NOW, &keyed))
		trial_fail("no keys");
	limiter = &neap_slot_at(segment->header, 0)->limiter;
	engine = neap_engine_open(1, NOW);
	keyed_term = (struct neap_limiter){.kind = NEAP_KEYED, .as.keyed = keyed};
	term = (struct neap_term){&keyed_term, 1, 0, 0};
	neap_all_init(&all, &term, 1);
	for (int n = 1; n <= count; n++)
		ask_key(n, 3 + n % 2 * 5, NOW);
}

/* What another does who finds it so. */
static void find(void)
{
	neap_limiter_available(limiter, LATER);
	if (keyed)
		neap_keyed_count(keyed, LATER);
}

static const struct scene {
	const char *name;
	int kind;
	void (*act)(void);
} scenes[] = {
	{"semaphore take", NEAP_SEMAPHORE, take}, {"semaphore give", NEAP_SEMAPHORE, give},
	{"semaphore settle", NEAP_SEMAPHORE, settle_down}, {"semaphore change", NEAP_SEMAPHORE, change},
	{"semaphore reap", NEAP_SEMAPHORE, reap}, {"semaphore all", NEAP_SEMAPHORE, take_all},
	{"adaptive take", NEAP_ADAPTIVE, take}, {"adaptive give", NEAP_ADAPTIVE, give},
	{"adaptive settle", NEAP_ADAPTIVE, settle_up}, {"adaptive change", NEAP_ADAPTIVE, lower},
	{"adaptive reap", NEAP_ADAPTIVE, reap},
	{"window take", NEAP_WINDOW, take}, {"window settle", NEAP_WINDOW, settle_down},
	{"window settle up", NEAP_WINDOW, settle_up}, {"window enter", NEAP_WINDOW, enter_late},
	{"window full", NEAP_WINDOW, take_full}, {"window enter full", NEAP_WINDOW, enter_full},
	{"window enter last", NEAP_WINDOW, enter_last},
	{"window hold", NEAP_WINDOW, hold}, {"window change", NEAP_WINDOW, change},
	{"window lower", NEAP_WINDOW, lower}, {"window all", NEAP_WINDOW, take_all},
	{"breaker give", NEAP_BREAKER, give}, {"breaker change", NEAP_BREAKER, change},
	{"gcra take", NEAP_GCRA, take}, {"gcra settle", NEAP_GCRA, settle_up},
	{"gcra hold", NEAP_GCRA, hold}, {"gcra change", NEAP_GCRA, change},
	{"new limiter", NEAP_GCRA, make},
	{"key take", NEAP_KEYED, key_take}, {"key settle", NEAP_KEYED, key_settle},
	{"key new", NEAP_KEYED, key_new}, {"key reuse", NEAP_KEYED, key_reuse},
	{"key forget", NEAP_KEYED, key_forget}, {"key change", NEAP_KEYED, key_change},
	{"key follow", NEAP_KEYED, key_follow}, {"new keys", NEAP_KEYED, key_make},
};

/* ---- what it is ---- */

struct state { int64_t word[STATE]; };

/* All that counts of a limiter, however it lies there. */
static struct state state_of(struct neap_limiter *l)
{
	struct state s = {{0}};
	int64_t *w = s.word;
	neap_guard_enter(l);
	const struct neap_slot *slot = neap_slot_of(l);
	const struct neap_window *n = &l->as.window;
	const struct neap_breaker *b = &l->as.breaker;
	const struct neap_adaptive *a = &l->as.adaptive;
	if (neap_limiter_spell(l, w))
		trial_fail("not a limiter any more");
	w += NEAP_SPEC_WORDS;
	memcpy(w, &slot->config, sizeof slot->config);
	w += sizeof slot->config / sizeof *w;
	for (int i = 0; i < 4; i++)
		*w++ = slot->holding[i];
	if (l->kind == NEAP_GCRA) {
		*w++ = l->as.gcra.tat & INT64_MAX;
		*w++ = l->as.gcra.held;
		*w++ = l->as.gcra.stands;
		for (int key = 1; keyed && key <= KEYS; key++) {
			struct neap_limiter of;
			int status = neap_keyed_look(keyed, key_of(key), seen_at, &of);
			*w++ = status;
			*w++ = status ? 0 : neap_limiter_available(&of, seen_at);
			*w++ = status ? 0 : neap_limiter_capacity(&of);
		}
	} else if (l->kind == NEAP_SEMAPHORE) {
		*w++ = l->as.semaphore.in_use;
	} else if (l->kind == NEAP_WINDOW) {
		*w++ = n->used;
		for (uint32_t i = 0; i < n->count; i++) {
			const struct neap_stamp *e = &n->log[(n->first + i) % n->size];
			*w++ = e->at;
			*w++ = e->cost;
		}
	} else if (l->kind == NEAP_BREAKER) {
		const int64_t is[] = {b->open, b->since, b->ends, b->let_out, b->out, b->lost,
				      b->succeeded, b->late, b->seen, b->failed, b->changes, b->count};
		memcpy(w, is, sizeof is);
		w += sizeof is / sizeof *w;
		for (uint32_t i = 0; i < b->count; i++, w += 3)
			memcpy(w, &b->memory[(b->first + i) % (uint32_t)b->trip.slices * 3],
			       3 * sizeof *w);
	} else {
		const int64_t is[] = {a->limit, (int64_t)(a->fraction * 1e9), a->in_use, a->full_at,
				      a->cut_at, a->lowered_at, a->changes, a->changed_at};
		memcpy(w, is, sizeof is);
	}
	neap_guard_leave(l);
	return s;
}

static int is_same(const struct state *a, const struct state *b)
{
	return !memcmp(a, b, sizeof *a);
}

/* ---- who does it ---- */

/* As it is to begin with: something spent, in some entries, by the one that acts, too. */
static void prepare(const struct scene *scene)
{
	unlink(shared_path());
	segment = shared_open(&(struct neap_segment_options){
		.limiters_max = 2, .processes_max = 3, .log_bytes = 8192 * 3});
	keyed = NULL;
	if (scene->kind == NEAP_KEYED) {
		seen_at = scene->act == key_reuse ? FULL : LATER;
		prepare_keys(scene->act == key_reuse ? 4 : 3);
		if (scene->act == key_follow)
			key_change();
		return;
	}
	limiter = shared_add(segment, "it", scene->kind, 10);
	if (scene->kind == NEAP_BREAKER) {
		for (int i = 0; i < 3; i++)
			neap_limiter_give(limiter, 1, NEAP_SUCCESS, NOW, NOW + i * 200000000);
		neap_limiter_give(limiter, 1, NEAP_FAILURE, NOW, LATER);
		return;
	}
	int full = scene->act == take_full || scene->act == enter_full || scene->act == enter_last;
	for (int i = 0; i < (full ? 10 : 4); i++)
		neap_limiter_take(limiter, 1, NOW + i * (full ? 2 : 1));
	if (scene->act == reap) {   /* of somebody who is dead */
		pid_t dead = shared_fork();
		if (!dead) {
			neap_limiter_take(limiter, 2, NOW + 10);
			_exit(0);
		}
		shared_wait(dead);
	}
}

static void (*acts)(void);   /* what is under way */

/* It holds permits before. */
static void hold_permits(void)
{
	if (acts != find && acts != reap && acts != make && !keyed && limiter->kind != NEAP_BREAKER)
		neap_limiter_take(limiter, PERMITS_HELD, NOW + 20);
}

static struct victim victim_of(void (*act)(void))
{
	acts = act;
	return (struct victim){hold_permits, act, segment->header, (size_t)segment->header->bytes};
}

static int points_of(void (*act)(void), int *point)
{
	struct victim v = victim_of(act);
	return victim_points(&v, point, POINTS);
}

static void kill_after(void (*act)(void), int steps)
{
	struct victim v = victim_of(act);
	victim_killed(&v, steps);
}

/* ---- what others find ---- */

static void close_it(void)
{
	neap_keyed_close(keyed);
	if (keyed)
		neap_engine_close(engine);
	keyed = NULL;
	neap_segment_close(segment);
	segment = NULL;
}

static struct state state_with(const struct scene *scene, int steps)
{
	prepare(scene);
	kill_after(scene->act, steps);
	struct state s = state_of(limiter);
	close_it();
	return s;
}

/* It goes on as if nothing had happened; what the dead held comes back, and that is all. */
static void goes_on(const char *what)
{
	neap_limiter_take(limiter, 1, LATER + 1);
	int64_t own = neap_slot_of(limiter)->holding[1];
	neap_segment_reap(segment);
	if (neap_segment_check(segment))
		trial_fail("%s: an invariant does not hold in the end", what);
	int64_t in_use = limiter->kind == NEAP_SEMAPHORE ? limiter->as.semaphore.in_use
			 : limiter->kind == NEAP_ADAPTIVE ? limiter->as.adaptive.in_use : own;
	if (in_use != own)
		trial_fail("%s: %ld permits are out, %ld are held", what, in_use, own);
	const struct neap_limiter pause = {.kind = NEAP_PAUSE};
	struct neap_limiter *l;
	if (neap_segment_add(segment, "another", &pause, 0, 0, LATER, &l) == NEAP_EFULL)
		trial_fail("%s: a place is lost", what);
}

static void killed_at(const struct scene *scene, int at, int second, const struct state *before,
		      const struct state *after)
{
	char what[128];
	snprintf(what, sizeof what, "%s, killed after %d, %d", scene->name, at, second);
	prepare(scene);
	kill_after(scene->act, at);
	if (second)
		kill_after(find, second);
	if (neap_segment_check(segment))
		trial_fail("%s: an invariant does not hold", what);
	struct state now = state_of(limiter);
	if (!is_same(&now, before) && !is_same(&now, after))
		trial_fail("%s: neither done nor not done", what);
	goes_on(what);
	close_it();
}

/* Some of the points, or all. */
static int goes(struct dice *d, int64_t wanted, int64_t points)
{
	return dice_between(d, 1, points) <= wanted;
}

static void one_scene(struct dice *d, const struct scene *scene)
{
	static int point[POINTS], undo[POINTS];
	prepare(scene);
	int count = points_of(scene->act, point);
	close_it();
	if (count < 1)
		trial_fail("%s: nothing was written", scene->name);
	struct state before = state_with(scene, 0), after = state_with(scene, STEPS_MOST);
	for (int i = 0; i < count; i++) {
		if (i < count - LAST && !goes(d, trial_ops(victim_samples), count))
			continue;
		killed_at(scene, point[i], 0, &before, &after);
		if (!goes(d, trial_ops(1), 3))
			continue;
		prepare(scene);
		kill_after(scene->act, point[i]);
		int undone = points_of(find, undo);
		close_it();
		for (int j = 0; j < undone; j++)
			if (goes(d, trial_ops(3), undone))
				killed_at(scene, point[i], undo[j], &before, &after);
	}
}

static void each_scene(struct dice *d)
{
	for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++)
		one_scene(d, &scenes[i]);
	unlink(shared_path());
}

int main(void)
{
	trial_run("killed between any two writes, a change is made or it is not", each_scene);
	return trial_verdict();
}

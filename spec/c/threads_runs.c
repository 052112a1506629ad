/* SPDX-License-Identifier: MIT */
/* threads_runs.c - whatever the order of its steps, a take of several words is one step.
 *
 * As in threads_orders.c, but nothing is summed up: grants and words at the end must be those of
 * some run in which the attempts came one after the other, each in one piece. All such runs are
 * tried beforehand. Clocks differ, so that debts drain between one step and the next; a pause may
 * be extended meanwhile.
 *
 * That a mistake would be found is seen by making some: takes that roll back nothing, or by taking
 * off what they charged, and machines that do not hold words, or do not let them go.
 */
#include "play.h"

#include <string.h>

enum { STATES = 20000 };

/* Where a run of whole steps has come to: how far each thread is, what was granted, the words. */
struct state {
	int8_t attempt[STEPS_THREADS];
	int8_t part[STEPS_THREADS];   /* of the attempt: 0 takes, n gives back by its n-th term */
	uint16_t granted;             /* a bit for each attempt of each thread */
	int64_t word[WORDS];
};

static struct {
	struct state state[STATES];
	int states, ends;      /* ends: how many of them, at the front, are those of whole runs */
	const char *wrong;     /* what an order has shown */
} runs;

static int is_known(const struct state *s, int from, int to)
{
	for (int i = from; i < to; i++)
		if (!memcmp(&runs.state[i], s, sizeof *s))
			return 1;
	return 0;
}

/* One whole step of a thread: an attempt, or giving back to one limiter. 0: it has ended. */
static int step_of(struct state *s, int thread)
{
	struct script *script = &play.script[thread];
	if (s->attempt[thread] == script->attempts)
		return 0;
	const struct attempt *a = &script->attempt[s->attempt[thread]];
	int64_t cost[NEAP_COSTS] = {0};
	memcpy(cost, a->cost, sizeof a->cost);
	for (int w = 0; w < WORDS; w++)
		*play_word(&play.limiter[w]) = s->word[w];
	int goes_on = 0;
	if (s->part[thread] == 0) {
		goes_on = play_attempt(script, a, neap_all_take);
		s->granted |= (uint16_t)(goes_on << (thread * ATTEMPTS + s->attempt[thread]));
		goes_on &= a->gives || a->settles;
	} else {
		struct neap_all one = {&script->term[s->part[thread] - 1], 1, 0, NULL};
		if (a->gives)
			neap_all_give(&one, cost, NEAP_SUCCESS, a->now, a->now);
		else
			neap_all_settle(&one, cost, (int64_t[NEAP_COSTS]){0}, a->now, a->now);
		goes_on = s->part[thread] < script->all.count;
	}
	s->part[thread] = (int8_t)(goes_on ? s->part[thread] + 1 : 0);
	s->attempt[thread] = (int8_t)(s->attempt[thread] + !goes_on);
	for (int w = 0; w < WORDS; w++)
		s->word[w] = *play_word(&play.limiter[w]);
	return 1;
}

/* All that can come of it, breadth first; then those in which all have come to their ends. */
static void run_in_whole_steps(void)
{
	int ends = 0;
	memset(runs.state, 0, sizeof *runs.state);
	play_begin();
	for (int w = 0; w < WORDS; w++)
		runs.state[0].word[w] = *play_word(&play.limiter[w]);
	runs.states = 1;
	runs.wrong = NULL;
	for (int i = 0; i < runs.states; i++) {
		int moved = 0;
		for (int t = 0; t < play.threads; t++) {
			struct state next = runs.state[i];
			if (!step_of(&next, t))
				continue;
			moved = 1;
			if (!is_known(&next, i + 1, runs.states)) {
				if (runs.states == STATES)
					trial_fail("more than %d states", STATES);
				runs.state[runs.states++] = next;
			}
		}
		if (!moved)
			runs.state[ends++] = runs.state[i];
	}
	runs.ends = ends;
}

static void is_a_run_of_whole_steps(void)
{
	struct state s;
	memset(&s, 0, sizeof s);
	for (int t = 0; t < play.threads; t++) {
		if (steps_fate(t) == STEPS_STUCK)
			runs.wrong = "a thread waits for ever";
		s.attempt[t] = (int8_t)play.script[t].attempts;
		for (int i = 0; i < play.script[t].attempts; i++)
			s.granted |= (uint16_t)(play.script[t].attempt[i].granted
						<< (t * ATTEMPTS + i));
	}
	for (int w = 0; w < WORDS; w++)
		s.word[w] = *play_word(&play.limiter[w]);
	if (!runs.wrong && !is_known(&s, 0, runs.ends))
		runs.wrong = "it ends as it never could one after the other";
	play.orders++;
}

static void any_limiter(struct dice *d, struct neap_limiter *l, int may_pause)
{
	int64_t kind = dice_between(d, 0, 9), limit = dice_between(d, 1, 3);
	memset(l, 0, sizeof *l);
	l->kind = may_pause && kind < 4 ? NEAP_PAUSE : kind < 7 ? NEAP_GCRA : NEAP_SEMAPHORE;
	if (l->kind == NEAP_GCRA) {
		neap_gcra_init(&l->as.gcra, 1, 10, limit);
		neap_gcra_fill(&l->as.gcra, dice_between(d, 0, limit), NOW);
	} else if (l->kind == NEAP_SEMAPHORE) {
		neap_semaphore_init(&l->as.semaphore, limit, (int)dice_between(d, 0, 1));
	}
}

/* Rates of a token per 10 ns, permits, sometimes a pause; and clocks that are up to 60 ns apart. */
static void any_play(struct dice *d)
{
	for (int w = 0; w < WORDS; w++)
		any_limiter(d, &play.fresh[w], w == WORDS - 1);
	play.threads = (int)dice_between(d, 2, STEPS_THREADS);
	for (int t = 0; t < play.threads; t++) {
		struct script *s = &play.script[t];
		play_any_script(d, s);
		int single = dice_between(d, 0, 3) == 0;
		if (single)
			s->all.count = 1;
		for (int i = 0; i < s->attempts; i++) {
			struct attempt *a = &s->attempt[i];
			a->now += dice_between(d, 0, 2) ? dice_between(d, 0, 60) : 0;
			a->pauses = dice_between(d, 0, 4) ? 0 : NOW + dice_between(d, 1, 60);
			a->fills = dice_between(d, 0, 9) ? 0 : (int)dice_between(d, 1, 3);
			a->alone = single && dice_between(d, 0, 1);
			if (play.threads == STEPS_THREADS)
				a->gives = a->settles = 0;   /* or there are too many runs */
		}
	}
}

/* What the orders of such plays show to be wrong, or NULL. */
static const char *show(struct dice *d, taker *take, int fault, int64_t orders)
{
	runs.wrong = NULL;
	play.orders = 0;
	while (play.orders < orders && !runs.wrong) {
		any_play(d);
		for (int t = 0; fault && t < play.threads; t++)   /* what was never held is not given back */
			for (int i = 0; i < ATTEMPTS; i++)
				play.script[t].attempt[i].gives = play.script[t].attempt[i].settles = 0;
		run_in_whole_steps();
		play.take = take;
		play.fault = fault;
		play_every_order(5 - play.threads, 4000, is_a_run_of_whole_steps);
		play.take = neap_all_take;
		play.fault = STEPS_RIGHT;
	}
	return runs.wrong;
}

static void whole_steps(struct dice *d)
{
	const char *wrong = show(d, neap_all_take, STEPS_RIGHT, trial_ops(400000));
	if (wrong)
		trial_fail("%s", wrong);
}

/* ---- mistakes ---- */

/* One term after the other, and when one refuses the others are charged all the same. */
static neap_ns take_without_roll_back(const struct neap_all *all, const int64_t *cost, neap_ns now,
				      int32_t *bound)
{
	(void)bound;
	for (int i = 0; i < all->count; i++) {
		const struct neap_term *t = &all->terms[i];
		neap_ns at = neap_limiter_take(t->limiter, cost[t->cost], now);
		if (at > now)
			return at;
	}
	return now;
}

/* The same, but what was charged is taken off again. */
static neap_ns take_and_subtract(const struct neap_all *all, const int64_t *cost, neap_ns now,
				 int32_t *bound)
{
	(void)bound;
	for (int i = 0; i < all->count; i++) {
		const struct neap_term *t = &all->terms[i];
		neap_ns at = neap_limiter_take(t->limiter, cost[t->cost], now);
		if (at <= now)
			continue;
		while (t-- > all->terms)
			neap_limiter_settle(t->limiter, cost[t->cost], 0, now, now);
		return at;
	}
	return now;
}

static void must_show(struct dice *d, taker *take, int fault)
{
	if (!show(d, take, fault, trial_ops(400000)))
		trial_fail("not found in %ld orders", play.orders);
}

static void without_roll_back(struct dice *d) { must_show(d, take_without_roll_back, STEPS_RIGHT); }

static void by_subtraction(struct dice *d) { must_show(d, take_and_subtract, STEPS_RIGHT); }

static void without_holds(struct dice *d) { must_show(d, neap_all_take, STEPS_NEVER_HOLDS); }

static void without_letting_go(struct dice *d) { must_show(d, neap_all_take, STEPS_NEVER_BACK); }

int main(void)
{
	trial_run("every order ends as some run of whole steps does", whole_steps);
	trial_run("a take without roll-back is found", without_roll_back);
	trial_run("a take that rolls back by subtraction is found", by_subtraction);
	trial_run("words that are not held are found", without_holds);
	trial_run("words that are not let go are found", without_letting_go);
	return trial_verdict();
}

/* SPDX-License-Identifier: MIT */
/* threads_orders.c - all-of over shared words in every order of its steps.
 *
 * Small cases, two or three threads with one or two attempts each, but each in every order that
 * its loads and swaps can have with a few changes of thread (model/steps.h). After each order the
 * words are what the grants add up to, the limits were kept, and somebody got through. Also when
 * owners of robust words stop for long, or for ever.
 */
#include "play.h"

#include <string.h>

static void nobody_is_stuck(void)
{
	for (int t = 0; t < play.threads; t++)
		if (steps_fate(t) == STEPS_STUCK)
			trial_fail("thread %d of %d waits for ever", t, play.threads);
}

static void sums_are_exact(void)
{
	nobody_is_stuck();
	int64_t sum[WORDS] = {0}, granted = 0;
	for (int t = 0; t < play.threads; t++)
		for (int i = 0; i < play.script[t].attempts; i++) {
			const struct attempt *a = &play.script[t].attempt[i];
			for (int w = 0; w < WORDS && a->granted; w++) {
				int back = play.limiter[w].kind == NEAP_SEMAPHORE && a->gives;
				sum[w] += back || a->settles ? 0 : play_asks(&play.script[t], a, w);
			}
			granted += a->granted;
		}
	for (int w = 0; w < WORDS; w++) {
		const struct neap_limiter *l = &play.limiter[w];
		int64_t spent = l->kind == NEAP_SEMAPHORE
					? l->as.semaphore.in_use
					: neap_limiter_capacity(l) - neap_limiter_available(l, NOW);
		if (spent != sum[w])
			trial_fail("word %d: %ld spent, %ld granted, in an order of %d threads", w, spent,
				   sum[w], play.threads);
	}
	if (play.over)
		trial_fail("more permits were held than there are");
	if (!granted)
		trial_fail("nobody got anything");
	play.orders++;
}

static void any_words(struct dice *d)
{
	for (int w = 0; w < WORDS; w++) {
		struct neap_limiter *l = &play.fresh[w];
		int64_t limit = dice_between(d, 2, 3);
		memset(l, 0, sizeof *l);
		l->kind = dice_between(d, 0, 1) ? NEAP_SEMAPHORE : NEAP_GCRA;
		if (l->kind == NEAP_SEMAPHORE)
			neap_semaphore_init(&l->as.semaphore, limit, 0);
		else
			neap_gcra_init(&l->as.gcra, 1, NOW, limit);
	}
}

static void random_plays(struct dice *d)
{
	for (play.orders = 0; play.orders < trial_ops(200000);) {
		any_words(d);
		play.threads = (int)dice_between(d, 2, STEPS_THREADS);
		for (int t = 0; t < play.threads; t++)
			play_any_script(d, &play.script[t]);
		play_every_order(5 - play.threads, 4000, sums_are_exact);
	}
}

/* Each makes one step after the other: who gives way to another for ever would do so here. */
static void in_turn(struct dice *d)
{
	for (play.orders = 0; play.orders < trial_ops(20000);) {
		any_words(d);
		play.threads = (int)dice_between(d, 2, STEPS_THREADS);
		for (int t = 0; t < play.threads; t++)
			play_any_script(d, &play.script[t]);
		play_every_order(STEPS_IN_TURN, 1, sums_are_exact);
	}
}

/* Two ask for the last of two permits, in opposite order: one gets both, whatever happens. */
static void exactly_one(void)
{
	sums_are_exact();
	int granted = play.script[0].attempt[0].granted + play.script[1].attempt[0].granted;
	if (granted != 1)
		trial_fail("%d were granted", granted);
}

static void opposite_orders(struct dice *d)
{
	(void)d;
	for (int rates = 0; rates < 3; rates++) {
		memset(play.fresh, 0, sizeof play.fresh);
		for (int w = 0; w < WORDS; w++) {
			play.fresh[w].kind = w < rates ? NEAP_GCRA : NEAP_SEMAPHORE;
			if (w < rates)
				neap_gcra_init(&play.fresh[w].as.gcra, 1, NOW, 1);
			else
				neap_semaphore_init(&play.fresh[w].as.semaphore, 1, 0);
		}
		play.threads = 2;
		for (int t = 0; t < 2; t++) {
			struct script *s = &play.script[t];
			s->term[t] = (struct neap_term){&play.limiter[0], 1, 0, 0};
			s->term[!t] = (struct neap_term){&play.limiter[1], 1, 0, 0};
			s->all = (struct neap_all){s->term, 2, 0, NULL};
			s->attempts = 1;
			s->attempt[0] = (struct attempt){.cost = {1}, .now = NOW};
		}
		play.orders = 0;
		if (play_every_order(7, trial_ops(100000), exactly_one) < 100)
			trial_fail("only %ld orders", play.orders);
	}
}

/* One rate, and clocks that disagree: tokens of no interval exceed burst + rate * its length. */
static void no_burst_is_exceeded(void)
{
	const struct neap_gcra *g = &play.limiter[0].as.gcra;
	int64_t burst = g->burst >> g->shift;
	for (neap_ns from = NOW; from < NOW + 6; from++)
		for (neap_ns to = from; to < NOW + 6; to++) {
			int64_t tokens = 0;
			for (int t = 0; t < play.threads; t++)
				for (int i = 0; i < play.script[t].attempts; i++) {
					const struct attempt *a = &play.script[t].attempt[i];
					if (a->granted && a->now >= from && a->now <= to)
						tokens += play_asks(&play.script[t], a, 0);
				}
			if (tokens > burst + (to - from))
				trial_fail("%ld tokens in %ld ns, burst %ld", tokens, to - from, burst);
		}
	play.orders++;
}

static void clocks_that_disagree(struct dice *d)
{
	for (play.orders = 0; play.orders < trial_ops(100000);) {
		any_words(d);
		play.fresh[0].kind = NEAP_GCRA;   /* a token per ns */
		neap_gcra_init(&play.fresh[0].as.gcra, 1, 1, dice_between(d, 1, 2));
		for (int w = 1; w < WORDS; w++) {
			play.fresh[w].kind = NEAP_SEMAPHORE;
			neap_semaphore_init(&play.fresh[w].as.semaphore, dice_between(d, 1, 2), 0);
		}
		play.threads = (int)dice_between(d, 2, STEPS_THREADS);
		for (int t = 0; t < play.threads; t++) {
			play_any_script(d, &play.script[t]);
			for (int i = 0; i < play.script[t].attempts; i++) {
				struct attempt *a = &play.script[t].attempt[i];
				a->now += dice_between(d, 0, 5);
				a->settles = 0;   /* that gives tokens back, and others may use them */
				for (int w = 0; w < WORDS; w++)
					a->cost[w] = 1;
			}
		}
		play_every_order(5 - play.threads, 2000, no_burst_is_exceeded);
	}
}

/* ---- robust words ---- */

/* A word has what was granted, and what a thread that died was about to take or has just taken. */
static void sums_are_exact_or_died(void)
{
	nobody_is_stuck();
	for (int w = 0; w < WORDS; w++) {
		const struct neap_limiter *l = &play.limiter[w];
		int64_t sum = 0, dead = 0;
		for (int t = 0; t < play.threads; t++)
			for (int i = 0; i < play.script[t].attempts; i++) {
				struct script *s = &play.script[t];
				int died = steps_fate(t) == STEPS_DIED && !s->attempt[i].granted;
				dead += died ? play_asks(s, &s->attempt[i], w) : 0;
				sum += s->attempt[i].granted ? play_asks(s, &s->attempt[i], w) : 0;
			}
		int64_t spent = l->kind == NEAP_SEMAPHORE
					? l->as.semaphore.in_use
					: neap_limiter_capacity(l) - neap_limiter_available(l, NOW);
		if (*play_word(&play.limiter[w]) < 0 && dead)
			spent = sum;   /* nobody came by to take the hold away */
		if (spent != sum && spent != sum + dead)
			trial_fail("word %d: %ld spent, %ld granted, %ld by the dead", w, spent, sum,
				   dead);
	}
	play.orders++;
}

static void dead_or_stopped(struct dice *d, int deaths)
{
	for (play.orders = 0; play.orders < trial_ops(100000);) {
		any_words(d);
		play.threads = (int)dice_between(d, 2, STEPS_THREADS);
		for (int w = 0; w < WORDS; w++)
			neap_limiter_share(&play.fresh[w]);
		for (int t = 0; t < play.threads; t++) {
			struct script *s = &play.script[t];
			play_any_script(d, s);
			s->attempts = 1;
			s->attempt->gives = s->attempt->settles = 0;
		}
		play.deaths = deaths;
		play_every_order(5 - play.threads, 4000, sums_are_exact_or_died);
		play.deaths = 0;
	}
}

static void dead(struct dice *d) { dead_or_stopped(d, 1); }

static void stopped(struct dice *d) { dead_or_stopped(d, 0); }

int main(void)
{
	trial_run("of two who ask in opposite order exactly one gets both", opposite_orders);
	trial_run("whatever the order, nothing is lost and nothing over-admitted", random_plays);
	trial_run("those who go step by step in turn all get through", in_turn);
	trial_run("whatever the clocks, one rate among permits keeps its burst", clocks_that_disagree);
	trial_run("robust words that stopped owners lose have exact sums", stopped);
	trial_run("robust words whose owner died are held by nobody for ever", dead);
	return trial_verdict();
}

/* SPDX-License-Identifier: MIT */
/* threads_orders.c - all-of over shared words in every order of its steps.
 *
 * Small cases, two or three threads with one or two attempts each, but each in every order that
 * its loads and swaps can have with a few changes of thread (model/steps.h). After each order the
 * words are what the grants add up to, the limits were kept, and somebody got through.
 */
#include "neap.h"
#include "steps.h"
#include "trial.h"

#include <string.h>

enum { WORDS = 3, ATTEMPTS = 2 };

static const neap_ns NOW = 1000000;

struct attempt {
	int64_t cost[WORDS];
	neap_ns now;
	int gives;          /* what it got, back again */
	int settles;        /* as if it had never been */
	int granted;
};

struct script {
	struct neap_term term[WORDS];
	struct neap_all all;
	struct attempt attempt[ATTEMPTS];
	int attempts;
};

static struct {
	struct neap_limiter limiter[WORDS], fresh[WORDS];
	struct script script[STEPS_THREADS];
	int threads;
	int64_t held[WORDS];        /* permits, by those who have them in hand */
	int over;                   /* they have more than there are */
	int64_t orders;
} play;

static struct neap_term *term_of(struct script *s, int word)
{
	for (int i = 0; i < s->all.count; i++)
		if (s->term[i].limiter == &play.limiter[word])
			return &s->term[i];
	return NULL;
}

static int64_t asks(struct script *s, const struct attempt *a, int word)
{
	const struct neap_term *t = term_of(s, word);
	return t ? a->cost[t->cost] : 0;
}

static void begin(void)
{
	memcpy(play.limiter, play.fresh, sizeof play.limiter);
	memset(play.held, 0, sizeof play.held);
	play.over = 0;
}

static void hold(struct script *s, const struct attempt *a, int sign)
{
	for (int w = 0; w < WORDS; w++) {
		play.held[w] += sign * asks(s, a, w);
		if (play.limiter[w].kind == NEAP_SEMAPHORE &&
		    play.held[w] > play.limiter[w].as.semaphore.limit)
			play.over = 1;
	}
}

static void perform(int thread)
{
	struct script *s = &play.script[thread];
	for (struct attempt *a = s->attempt; a < s->attempt + s->attempts; a++) {
		int64_t cost[NEAP_COSTS] = {0};
		memcpy(cost, a->cost, sizeof a->cost);
		a->granted = neap_all_take(&s->all, cost, a->now, NULL) <= a->now;
		if (!a->granted)
			continue;
		hold(s, a, 1);
		if (a->gives || a->settles)
			hold(s, a, -1);
		if (a->gives)
			neap_all_give(&s->all, cost, NEAP_SUCCESS, a->now, a->now);
		if (a->settles)
			neap_all_settle(&s->all, cost, (int64_t[NEAP_COSTS]){0}, a->now, a->now);
	}
}

static void sums_are_exact(void)
{
	int64_t sum[WORDS] = {0}, granted = 0;
	for (int t = 0; t < play.threads; t++)
		for (int i = 0; i < play.script[t].attempts; i++) {
			const struct attempt *a = &play.script[t].attempt[i];
			for (int w = 0; w < WORDS && a->granted; w++) {
				int back = play.limiter[w].kind == NEAP_SEMAPHORE && a->gives;
				sum[w] += back || a->settles ? 0 : asks(&play.script[t], a, w);
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

static void any_script(struct dice *d, struct script *s)
{
	int order[WORDS];
	for (int i = 0; i < WORDS; i++) {
		int j = (int)dice_between(d, 0, i);
		order[i] = order[j];
		order[j] = i;
	}
	int count = (int)dice_between(d, 2, WORDS);
	for (int i = 0; i < count; i++)
		s->term[i] = (struct neap_term){&play.limiter[order[i]], 1, i, 0};
	s->all = (struct neap_all){s->term, count, 0};
	s->attempts = (int)dice_between(d, 1, ATTEMPTS);
	for (struct attempt *a = s->attempt; a < s->attempt + s->attempts; a++) {
		*a = (struct attempt){.now = NOW, .gives = dice_between(d, 0, 2) == 0};
		a->settles = !a->gives && dice_between(d, 0, 3) == 0;
		for (int i = 0; i < WORDS; i++)
			a->cost[i] = dice_between(d, 0, 4) ? 1 : 2;
	}
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
			any_script(d, &play.script[t]);
		steps_every_order(play.threads, 5 - play.threads, 4000, begin, perform, sums_are_exact);
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
			s->all = (struct neap_all){s->term, 2, 0};
			s->attempts = 1;
			s->attempt[0] = (struct attempt){.cost = {1}, .now = NOW};
		}
		play.orders = 0;
		if (steps_every_order(2, 7, trial_ops(100000), begin, perform, exactly_one) < 100)
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
						tokens += asks(&play.script[t], a, 0);
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
			any_script(d, &play.script[t]);
			for (int i = 0; i < play.script[t].attempts; i++) {
				struct attempt *a = &play.script[t].attempt[i];
				a->now += dice_between(d, 0, 5);
				a->settles = 0;   /* that gives tokens back, and others may use them */
				for (int w = 0; w < WORDS; w++)
					a->cost[w] = 1;
			}
		}
		steps_every_order(play.threads, 5 - play.threads, 2000, begin, perform,
				  no_burst_is_exceeded);
	}
}

int main(void)
{
	trial_run("of two who ask in opposite order exactly one gets both", opposite_orders);
	trial_run("whatever the order, nothing is lost and nothing over-admitted", random_plays);
	trial_run("whatever the clocks, one rate among permits keeps its burst", clocks_that_disagree);
	return trial_verdict();
}

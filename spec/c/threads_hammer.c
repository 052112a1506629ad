/* SPDX-License-Identifier: MIT */
/* threads_hammer.c - shared words under as many hands as there are.
 *
 * On the machine's clock, threads take from one rate as fast as they can for NEAP_SECONDS: what
 * all of them get is at most burst + rate * time, and at least 99.9 % of it. The burst holds
 * 100 ms, for a machine that has other things to do. On a clock that they share as well, a
 * counter that each of them moves, nothing is lost to the machine: there the burst may be small.
 *
 * With all-of, races are lost all the time. Afterwards the sums are exact, and while permits are
 * held, a second count, kept by the holders themselves, never passes the limit.
 */
#include "neap.h"
#include "trial.h"

#include <pthread.h>
#include <time.h>

enum { HANDS = 4, WORDS = 4 };

static const neap_ns SECOND = 1000000000;

/* Run 'hands' threads of body over args[0 ..], each of 'size' bytes. */
static void all_hands(int hands, void *(*body)(void *), void *args, size_t size)
{
	pthread_t thread[HANDS];
	for (int i = 0; i < hands; i++)
		if (pthread_create(&thread[i], NULL, body, (char *)args + (size_t)i * size))
			trial_fail("no thread");
	for (int i = 0; i < hands; i++)
		pthread_join(thread[i], NULL);
}

/* ---- one rate ---- */

struct clock {
	int shared;          /* a counter, not the machine's */
	neap_ns counter, step;
	neap_ns until;
};

struct taker {
	struct neap_gcra *g;
	struct clock *clock;
	int64_t cost, taken;
	neap_ns first, last;
};

static neap_ns read_clock(struct clock *c)
{
	if (c->shared)
		return __atomic_fetch_add(&c->counter, c->step, __ATOMIC_RELAXED);
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void *take_for_a_while(void *arg)
{
	struct taker *t = arg;
	t->first = t->last = read_clock(t->clock);
	while (t->last < t->clock->until) {
		t->last = read_clock(t->clock);
		if (neap_gcra_take(t->g, t->cost, t->last) <= t->last)
			t->taken += t->cost;
	}
	return NULL;
}

static void hammer_one_rate(int hands, struct clock *c, int64_t per_second, int64_t burst,
			    int64_t cost)
{
	struct neap_gcra g;
	struct taker taker[HANDS];
	if (neap_gcra_init(&g, per_second, SECOND, burst))
		trial_fail("%ld/s burst %ld", per_second, burst);
	for (int i = 0; i < hands; i++)
		taker[i] = (struct taker){.g = &g, .clock = c, .cost = cost};
	all_hands(hands, take_for_a_while, taker, sizeof *taker);
	neap_ns first = taker[0].first, last = taker[0].last;
	double taken = 0;
	for (int i = 0; i < hands; i++) {
		first = taker[i].first < first ? taker[i].first : first;
		last = taker[i].last > last ? taker[i].last : last;
		taken += (double)taker[i].taken;
	}
	double most = (double)burst + (double)per_second * (double)(last - first + 1) / 1e9;
	if (taken > most)
		trial_fail("%.0f taken, %.3f at most", taken, most);
	while (neap_gcra_take(&g, 1, last) <= last)   /* what is still there was not lost */
		taken++;
	if (taken < 0.999 * most)
		trial_fail("%.0f taken of %.3f: %.4f", taken, most, taken / most);
}

static void real_time(int hands)
{
	struct clock c = {0};
	c.until = read_clock(&c) + (neap_ns)(trial_seconds() * 1e9);
	hammer_one_rate(hands, &c, 199999, 20000, 1);
}

static void two_hands(struct dice *d)
{
	(void)d;
	real_time(2);
}

static void four_hands(struct dice *d)
{
	(void)d;
	real_time(4);
}

static void shared_time(struct dice *d)
{
	const int64_t rates[] = {700000, 1000000000, 5000000000, 31};
	for (unsigned i = 0; i < sizeof rates / sizeof *rates; i++) {
		/* every third reading finds enough, so the bucket runs dry and stays so */
		int64_t cost = dice_between(d, 16, 48);
		neap_ns step = cost * SECOND / rates[i] / 3 + 1;
		struct clock c = {1, dice_between(d, 0, SECOND), step, 0};
		c.until = c.counter + step * trial_ops(400000);
		hammer_one_rate(2 + 2 * (int)(i & 1), &c, rates[i], 1000, cost);
	}
}

/* ---- all-of ---- */

struct shared {
	struct neap_limiter limiter[WORDS];   /* permits, but the last, a rate */
	int64_t held[WORDS];
	int64_t limit[WORDS];
	int64_t over;
};

struct holder {
	struct shared *shared;
	struct dice dice;
	struct neap_term term[WORDS];
	struct neap_all all;
	int64_t rounds, spent, granted, refused;
};

static void hold(struct holder *h, int64_t *cost)
{
	struct shared *s = h->shared;
	int64_t asked[WORDS] = {0};
	for (int i = 0; i < h->all.count; i++)
		asked[h->term[i].limiter - s->limiter] += cost[h->term[i].cost];
	if (neap_all_take(&h->all, cost, SECOND, NULL) > SECOND) {
		h->refused++;
		return;
	}
	h->granted++;
	h->spent += asked[WORDS - 1];
	for (int i = 0; i < WORDS - 1; i++)
		if (__atomic_add_fetch(&s->held[i], asked[i], __ATOMIC_SEQ_CST) > s->limit[i])
			__atomic_store_n(&s->over, i + 1, __ATOMIC_RELAXED);
	if (dice_between(&h->dice, 0, 1))
		for (int64_t n = dice_between(&h->dice, 0, 200); n; n--)
			__atomic_signal_fence(__ATOMIC_SEQ_CST);
	for (int i = 0; i < WORDS - 1; i++)
		__atomic_sub_fetch(&s->held[i], asked[i], __ATOMIC_SEQ_CST);
	if (dice_between(&h->dice, 0, 3)) {
		neap_all_give(&h->all, cost, NEAP_SUCCESS, SECOND, SECOND);
	} else {   /* never taken, if nothing was used */
		neap_all_settle(&h->all, cost, (int64_t[NEAP_COSTS]){0}, SECOND, SECOND);
		h->spent -= asked[WORDS - 1];
	}
}

static void *take_and_give(void *arg)
{
	struct holder *h = arg;
	for (; h->rounds; h->rounds--) {
		int64_t cost[NEAP_COSTS];
		for (int i = 0; i < NEAP_COSTS; i++)
			cost[i] = dice_between(&h->dice, 0, 2);
		hold(h, cost);
	}
	return NULL;
}

/* Each holder asks the words in an order of its own: the worst for getting in each other's way. */
static void any_order(struct dice *d, struct holder *h)
{
	int order[WORDS];
	for (int i = 0; i < WORDS; i++) {
		int j = (int)dice_between(d, 0, i);
		order[i] = order[j];
		order[j] = i;
	}
	int count = (int)dice_between(d, 2, WORDS);
	for (int i = 0; i < count; i++)
		h->term[i] = (struct neap_term){&h->shared->limiter[order[i]], 1,
						(int32_t)dice_between(d, 0, NEAP_COSTS - 1), 0};
	h->all = (struct neap_all){h->term, count, 0, NULL};
	h->dice.state = dice_throw(d);
}

static void sums_are_exact(struct dice *d)
{
	for (int64_t ops = trial_ops(1600000); ops > 0;) {
		static struct shared s;
		static struct holder holder[HANDS];
		int hands = dice_between(d, 0, 1) ? 2 : 4;
		int64_t burst = dice_any_size(d, 1, INT64_C(1) << 40), spent = 0, granted = 0;
		s = (struct shared){0};
		for (int i = 0; i < WORDS - 1; i++) {
			s.limiter[i].kind = NEAP_SEMAPHORE;
			s.limit[i] = dice_between(d, 1, 4);
			neap_semaphore_init(&s.limiter[i].as.semaphore, s.limit[i], 0);
		}
		s.limiter[WORDS - 1].kind = NEAP_GCRA;
		struct neap_gcra *g = &s.limiter[WORDS - 1].as.gcra;
		neap_gcra_init(g, 1, SECOND * 1000000, burst);
		neap_gcra_fill(g, burst, SECOND);
		int64_t before = g->tat;
		for (int i = 0; i < hands; i++) {
			holder[i] = (struct holder){.shared = &s, .rounds = 20000};
			any_order(d, &holder[i]);
		}
		all_hands(hands, take_and_give, holder, sizeof *holder);
		for (int i = 0; i < hands; i++) {
			spent += holder[i].spent;
			granted += holder[i].granted;
			ops -= 20000;
		}
		if (s.over)
			trial_fail("more than %ld permits of word %ld were out", s.limit[s.over - 1],
				   s.over - 1);
		for (int i = 0; i < WORDS - 1; i++)
			if (s.limiter[i].as.semaphore.in_use)
				trial_fail("%ld permits never came back", s.limiter[i].as.semaphore.in_use);
		if (g->tat - before != spent << g->shift || spent > burst)
			trial_fail("%ld of %ld units spent, %ld missing", g->tat - before, g->burst,
				   (spent << g->shift) - (g->tat - before));
		if (!granted)
			trial_fail("nobody got anything");
	}
}

/* ---- pause ---- */

static struct neap_pause pause_shared;

static void *extend(void *arg)
{
	struct dice *d = arg;
	for (int i = 0; i < 20000; i++) {
		neap_ns until = dice_between(d, 0, SECOND);
		if (neap_pause_extend(&pause_shared, until) < until)
			d->state = 0;
		if (neap_pause_when(&pause_shared, 0) < until)
			d->state = 0;
	}
	return NULL;
}

static void longest_pause_wins(struct dice *d)
{
	struct dice hand[2] = {{dice_throw(d) | 1}, {dice_throw(d) | 1}}, again[2] = {hand[0], hand[1]};
	neap_ns longest = 0;
	neap_pause_init(&pause_shared);
	all_hands(2, extend, hand, sizeof *hand);
	for (int i = 0; i < 2; i++)
		for (int n = 0; n < 20000; n++) {
			neap_ns until = dice_between(&again[i], 0, SECOND);
			longest = until > longest ? until : longest;
		}
	if (hand[0].state != again[0].state || hand[1].state != again[1].state)
		trial_fail("a pause was shortened");
	if (pause_shared.ends != longest)
		trial_fail("paused until %ld, not %ld", pause_shared.ends, longest);
}

int main(void)
{
	trial_run("two threads on one rate get all of it and no more", two_hands);
	trial_run("four threads on one rate get all of it and no more", four_hands);
	trial_run("threads whose clocks disagree get all of a small burst and no more", shared_time);
	trial_run("threads that lose races over several words leave exact sums", sums_are_exact);
	trial_run("of many pauses at once the longest stays", longest_pause_wins);
	return trial_verdict();
}

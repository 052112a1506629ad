/* SPDX-License-Identifier: MIT */
/* threads_hammer.c - shared words under as many hands as there are.
 *
 * On the machine's clock, threads take from one rate as fast as they can for NEAP_SECONDS: what
 * all of them get is at most burst + rate * time. On a clock that they share as well, a counter that
 * each of them moves, nothing is lost to a machine that has other things to do: there it is at
 * least 99.9 % of it, too.
 *
 * With all-of, races are lost all the time. Afterwards the sums are exact, and while permits are
 * held, a second count, kept by the holders themselves, never passes the limit.
 *
 * Last, everything at once, 10,000,000 times: composites of composites over rates and permits that
 * all share, each hand with an order, multipliers and costs of its own, on a clock that moves and on
 * which they disagree. A rate with room keeps an exact sum; of one that runs dry and fills again all
 * the time, no interval has more than burst + rate * length.
 */
#include "neap.h"
#include "trial.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

enum { HANDS = 4, WORDS = 4 };

#ifdef __SANITIZE_THREAD__   /* twenty times as slow */
enum { SUITE_TRIES = 1000000 };
#else
enum { SUITE_TRIES = 10000000 };
#endif

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
	if (c->shared && taken < 0.999 * most)
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

/* ---- everything at once ---- */

enum { POOL = 8, TRIES = 100000, LAG = 20, STRIDE = 3 };

struct grant {
	neap_ns at;
	int32_t asked[POOL];
};

struct pool {
	struct neap_limiter limiter[POOL];
	int64_t amount[POOL], period[POOL];     /* of a rate that runs dry; otherwise 0 */
	int64_t limit[POOL], held[POOL], over;
	neap_ns clock;
	int settles;                            /* tokens come back, which others may use */
	int64_t span[HANDS * TRIES * STRIDE + LAG + 1];   /* tokens granted, by the ns */
};

struct hand {
	struct pool *pool;
	struct dice dice;
	struct neap_term term[NEAP_TERMS];
	struct neap_all all;
	int64_t kept[POOL];                     /* granted and not given back */
	int64_t granted, refused;
	struct grant grant[TRIES];
};

/* Hold what was granted for a moment, then give it back, or say that some of it was not used. */
static void use(struct hand *h, const int64_t *cost, const struct grant *g)
{
	struct pool *p = h->pool;
	for (int i = 0; i < POOL; i++)
		if (p->limit[i] &&
		    __atomic_add_fetch(&p->held[i], g->asked[i], __ATOMIC_SEQ_CST) > p->limit[i])
			__atomic_store_n(&p->over, i + 1, __ATOMIC_RELAXED);
	for (int64_t n = dice_between(&h->dice, 0, 9) ? 0 : dice_between(&h->dice, 0, 300); n; n--)
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	for (int i = 0; i < POOL; i++)
		if (p->limit[i])
			__atomic_sub_fetch(&p->held[i], g->asked[i], __ATOMIC_SEQ_CST);
	int64_t used[NEAP_COSTS];
	memcpy(used, cost, sizeof used);
	if (p->settles && dice_between(&h->dice, 0, 1)) {
		for (int i = 0; i < NEAP_COSTS; i++)
			used[i] = dice_between(&h->dice, 0, cost[i]);
		neap_all_settle(&h->all, cost, used, g->at, g->at);
	}
	neap_all_give(&h->all, used, NEAP_SUCCESS, g->at, g->at);
	for (int i = 0; i < h->all.count; i++)
		h->kept[h->term[i].limiter - p->limiter] += used[h->term[i].cost] * h->term[i].multiplier;
}

static void *try_and_use(void *arg)
{
	struct hand *h = arg;
	for (int n = 0; n < TRIES; n++) {
		struct grant *g = &h->grant[h->granted];
		int64_t cost[NEAP_COSTS], step = dice_between(&h->dice, 0, STRIDE);
		for (int i = 0; i < NEAP_COSTS; i++)
			cost[i] = dice_between(&h->dice, 0, 2);
		*g = (struct grant){.at = __atomic_add_fetch(&h->pool->clock, step, __ATOMIC_RELAXED) -
					  dice_between(&h->dice, 0, LAG)};
		for (int i = 0; i < h->all.count; i++)
			g->asked[h->term[i].limiter - h->pool->limiter] +=
				(int32_t)(cost[h->term[i].cost] * h->term[i].multiplier);
		if (neap_all_take(&h->all, cost, g->at, NULL) > g->at) {
			h->refused++;
			continue;
		}
		h->granted++;
		use(h, cost, g);
	}
	return NULL;
}

/* A third are permits, a third rates with much room, a third rates that are tight. */
static void any_pool(struct dice *d, struct pool *p)
{
	memset(p, 0, sizeof *p);
	p->clock = SECOND;
	p->settles = (int)dice_between(d, 0, 1);
	int robust = dice_between(d, 0, 3) == 0;
	for (int i = 0; i < POOL; i++) {
		struct neap_limiter *l = &p->limiter[i];
		int64_t kind = dice_between(d, 0, 2), room = dice_between(d, 30, 200);
		l->kind = kind ? NEAP_GCRA : NEAP_SEMAPHORE;
		if (kind == 0) {
			p->limit[i] = room;
			neap_semaphore_init(&l->as.semaphore, room, 0);
		} else if (kind == 1) {   /* half empty, and it takes years to fill */
			neap_gcra_init(&l->as.gcra, 1, SECOND, INT64_C(1) << 28);
			neap_gcra_fill(&l->as.gcra, INT64_C(1) << 27, SECOND);
		} else {
			p->amount[i] = dice_between(d, 1, 20), p->period[i] = dice_between(d, 4, 20);
			neap_gcra_init(&l->as.gcra, p->amount[i], p->period[i], room);
		}
		if (robust)   /* whose hold may be lost, but no charge */
			neap_limiter_share(l), p->limit[i] = 0, p->amount[i] = 0;
	}
}

/* Two composites of one to three composites of one to three, some of them the same: flattened. */
static void any_nest(struct dice *d, struct hand *h)
{
	int64_t times[POOL][NEAP_COSTS] = {{0}};
	for (int64_t outer = 0, count = 0; outer < 2 || count < 2; outer++)
		for (int64_t inner = dice_between(d, 1, 3); inner; inner--) {
			int64_t *t = times[dice_between(d, 0, POOL - 1)];
			count += !t[0] && !t[1];
			t[dice_between(d, 0, 1)] += dice_between(d, 1, 2);
		}
	h->all.count = 0;
	int64_t first = dice_between(d, 0, POOL - 1), stride = dice_between(d, 0, 3) * 2 + 1;
	for (int n = 0; n < POOL; n++) {
		int64_t i = (first + n * stride) % POOL;
		for (int c = 0; c < 2; c++)
			if (times[i][c])
				h->term[h->all.count++] = (struct neap_term){
					&h->pool->limiter[i], times[i][c],
					c * (int32_t)dice_between(d, 1, NEAP_COSTS - 1), 0};
	}
	if (neap_all_init(&h->all, h->term, h->all.count))
		trial_fail("a composite of %d terms is refused", h->all.count);
}

/* In no interval more than burst + rate * length: what was granted fits a bucket that drips. */
static void fits_a_bucket(struct pool *p, const struct hand *hand, int i)
{
	memset(p->span, 0, sizeof p->span);
	for (int h = 0; h < HANDS; h++)
		for (int64_t n = 0; n < hand[h].granted; n++)
			p->span[hand[h].grant[n].at - SECOND + LAG] += hand[h].grant[n].asked[i];
	int64_t debt = 0, burst = neap_limiter_capacity(&p->limiter[i]) * p->period[i];
	for (int64_t t = 0; t <= p->clock - SECOND + LAG; t++) {
		debt = debt > p->amount[i] ? debt - p->amount[i] : 0;
		debt += p->span[t] * p->period[i];
		if (debt > burst + p->amount[i])   /* a unit of the clock is at most a ns */
			trial_fail("rate %d: %ld over %ld at %ld ns", i, debt - burst, burst, t);
	}
}

static void everything_at_once(struct dice *d)
{
	static struct pool pool;
	static struct hand hand[HANDS];
	for (int64_t tries = trial_ops(SUITE_TRIES); tries > 0; tries -= HANDS * TRIES) {
		int64_t tat[POOL], granted = 0, refused = 0;
		any_pool(d, &pool);
		for (int i = 0; i < POOL; i++)
			tat[i] = pool.limiter[i].as.gcra.tat;
		for (int h = 0; h < HANDS; h++) {
			hand[h].pool = &pool;
			hand[h].granted = hand[h].refused = 0;
			memset(hand[h].kept, 0, sizeof hand[h].kept);
			hand[h].dice.state = dice_throw(d);
			any_nest(d, &hand[h]);
		}
		all_hands(HANDS, try_and_use, hand, sizeof *hand);
		for (int h = 0; h < HANDS; h++)
			granted += hand[h].granted, refused += hand[h].refused;
		if (pool.over)
			trial_fail("more than %ld permits of word %ld were out", pool.limit[pool.over - 1],
				   pool.over - 1);
		for (int i = 0; i < POOL; i++) {
			const struct neap_limiter *l = &pool.limiter[i];
			int64_t kept = 0;
			for (int h = 0; h < HANDS; h++)
				kept += hand[h].kept[i];
			if (l->kind == NEAP_SEMAPHORE && l->as.semaphore.in_use)
				trial_fail("%ld permits never came back", l->as.semaphore.in_use);
			if (l->kind == NEAP_GCRA && pool.period[i] == 0 &&
			    l->as.gcra.tat - tat[i] != kept << l->as.gcra.shift)
				trial_fail("word %d: %ld units for %ld tokens", i, l->as.gcra.tat - tat[i],
					   kept);
			if (pool.amount[i] && !pool.settles)
				fits_a_bucket(&pool, hand, i);
		}
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
	trial_run("two threads on one rate get no more than it has", two_hands);
	trial_run("four threads on one rate get no more than it has", four_hands);
	trial_run("threads whose clocks disagree get all of a small burst and no more", shared_time);
	trial_run("threads that lose races over several words leave exact sums", sums_are_exact);
	trial_run("whatever four hands do to eight limiters, every sum is exact and every bound kept",
		  everything_at_once);
	trial_run("of many pauses at once the longest stays", longest_pause_wins);
	return trial_verdict();
}

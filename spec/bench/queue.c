/* SPDX-License-Identifier: MIT */
/* queue.c - what a grant costs, by how many wait in a queue.
 *
 *   queue_1e3, queue_1e5    grants from a queue of so many, against as many from one of 10
 *   queue_plain             the same of 10^5 with one key and one priority, against a plain line
 *
 * A queue keeps its length: whoever is granted comes again, as somebody of 1000 keys, and with one
 * of 10 priorities, at random; so places and flows lie anywhere. A grant is everything from the turn
 * of the loop on: advance, drain, acquire. What is left of a ratio is what the cache does not hold.
 */
#include "neap.h"
#include "race.h"

enum { ROUNDS = 41, FEW = 10, SOME = 1000, MANY = 100000, GRANTS = 20000, KEYS = 1000, CLASSES = 10 };

struct crowd {
	struct neap_engine *engine;
	struct neap_queue *queue;
	struct neap_limiter limiter;
	struct neap_term term;
	struct neap_all all;
	uint64_t seed;
	neap_ns now;
	int mixed, batch;
};

static void join(struct crowd *c)
{
	struct neap_request r = {
		.all = &c->all, .deadline = neap_never, .cost = {1}, .queue = c->queue};
	struct neap_answer a;
	if (c->mixed) {
		r.flow = race_random(&c->seed) % KEYS;
		r.priority = (int32_t)(race_random(&c->seed) % CLASSES);
	}
	if (neap_engine_acquire(c->engine, &r, c->now, &a) || a.status != NEAP_WAITING)
		abort();
}

static void gather(struct crowd *c, uint32_t n, int mixed, int queues)
{
	*c = (struct crowd){.limiter.kind = NEAP_GCRA, .mixed = mixed, .batch = n < 100 ? (int)n : 100};
	neap_gcra_init(&c->limiter.as.gcra, 1000000, 1000000000, 1);
	neap_gcra_fill(&c->limiter.as.gcra, 0, 0);
	c->term = (struct neap_term){&c->limiter, 1, 0, 0};
	neap_all_init(&c->all, &c->term, 1);
	c->engine = neap_engine_open(n + 1, 0);
	c->queue = queues ? neap_queue_open(n, NEAP_REJECT, 0) : NULL;
	if (!c->engine || (queues && !c->queue))
		abort();
	for (uint32_t i = 0; i < n; i++)
		join(c);
}

static double per_grant(struct crowd *c)
{
	struct neap_completion done[100];
	int64_t start = race_clock();
	for (int n = 0; n < GRANTS; n += c->batch) {
		c->now += c->batch * 1000;
		if (neap_engine_advance(c->engine, c->now) != c->batch ||
		    neap_engine_drain(c->engine, done, c->batch) != c->batch)
			abort();
		for (int i = 0; i < c->batch; i++)
			join(c);
	}
	return (double)(race_clock() - start) / GRANTS;
}

static void let_go(struct crowd *c)
{
	neap_engine_close(c->engine);
	neap_queue_close(c->queue);
}

int main(void)
{
	static struct race race = {.rounds = ROUNDS};
	static struct crowd crowd[5];
	gather(&crowd[0], FEW, 1, 1);
	gather(&crowd[1], SOME, 1, 1);
	gather(&crowd[2], MANY, 1, 1);
	gather(&crowd[3], MANY, 0, 1);
	gather(&crowd[4], MANY, 0, 0);
	for (int c = 1; c < 5; c++)   /* everybody has gone once, so nothing lies in order any more */
		for (int i = 0; i < MANY / GRANTS + 1; i++)
			per_grant(&crowd[c]);
	for (int i = 0; i < ROUNDS; i++)
		for (int c = 0; c < 5; c++)
			race.time[c][i] = per_grant(&crowd[c]);
	race_report(&race, 1, "queue_1e3", "ns", 0, "10-waiters", "<=2.0");
	race_report(&race, 2, "queue_1e5", "ns", 0, "10-waiters", "<=2.0");
	race_report(&race, 3, "queue_plain", "ns", 4, "line-of-10^5", NULL);
	for (int c = 0; c < 5; c++)
		let_go(&crowd[c]);
	return 0;
}

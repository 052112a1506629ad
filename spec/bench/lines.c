/* SPDX-License-Identifier: MIT */
/* lines.c - what a grant costs, and what a waiter, when very many wait for one limit.
 *
 *   lines           grants from a line of 10^6, against as many from a line of 10^3
 *   lines_deadline  the same when each waiter also has a deadline, and so a timer, of its own
 *   waiter_bytes    what the engine holds at 10^6 waiters, and what the process grew by
 *
 * The line keeps its length: whoever is granted joins again at the end. Records are used again in
 * the order in which they were given back, which after a while is none; so all have been given
 * back once in random order before the clock starts. A grant is everything from the turn of the
 * loop on: advance, drain, acquire.
 */
#include "neap.h"
#include "race.h"

#include <unistd.h>

enum { ROUNDS = 41, FEW = 1000, MANY = 1000000, GRANTS = 30000, BATCH = 100 };

struct crowd {
	struct neap_engine *engine;
	struct neap_limiter limiter;
	struct neap_term term;
	struct neap_all all;
	neap_ns now, patience_ns;
};

static void join(struct crowd *c)
{
	struct neap_request r = {.all = &c->all, .deadline = neap_never, .cost = {1}};
	struct neap_answer a;
	if (c->patience_ns)
		r.deadline = c->now + c->patience_ns;
	if (neap_engine_acquire(c->engine, &r, c->now, &a) || a.status != NEAP_WAITING)
		abort();
}

static void turn(struct crowd *c)
{
	struct neap_completion done[BATCH];
	c->now += BATCH * 1000;
	if (neap_engine_advance(c->engine, c->now) != BATCH ||
	    neap_engine_drain(c->engine, done, BATCH) != BATCH)
		abort();
	for (int i = 0; i < BATCH; i++)
		join(c);
}

/* Give all records back in random order. */
static void shuffle(struct crowd *c, uint32_t n)
{
	uint64_t seed = 1;
	uint32_t *order = malloc(n * sizeof *order);
	struct neap_completion done[BATCH];
	if (!order)
		abort();
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)(race_random(&seed) % (i + 1));
		order[i] = order[j];
		order[j] = i;
	}
	const int64_t first_generation = INT64_C(1) << 24;
	for (uint32_t i = 0; i < n; i++)
		if (!neap_engine_cancel(c->engine, first_generation | order[i], c->now))
			abort();
	while (neap_engine_drain(c->engine, done, BATCH))
		;
	free(order);
}

static void gather(struct crowd *c, uint32_t n, neap_ns patience_ns)
{
	*c = (struct crowd){.limiter.kind = NEAP_GCRA, .patience_ns = patience_ns};
	neap_gcra_init(&c->limiter.as.gcra, 1000000, 1000000000, 1);
	neap_gcra_fill(&c->limiter.as.gcra, 0, 0);
	c->term = (struct neap_term){&c->limiter, 1, 0, 0};
	c->all = (struct neap_all){&c->term, 1, 0, NULL};
	c->engine = neap_engine_open(n, 0);
	if (!c->engine)
		abort();
	for (uint32_t i = 0; i < n; i++)
		join(c);
	shuffle(c, n);
	for (uint32_t i = 0; i < n; i++)
		join(c);
}

static double per_grant(struct crowd *c)
{
	int64_t start = race_clock();
	for (int i = 0; i < GRANTS / BATCH; i++)
		turn(c);
	return (double)(race_clock() - start) / GRANTS;
}

static int64_t resident(void)
{
	long long all, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (!f || fscanf(f, "%lld %lld", &all, &pages) != 2)
		abort();
	fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

static void race_to(const char *name, neap_ns patience_ns, const char *target)
{
	static struct race race = {.rounds = ROUNDS};
	struct crowd many, few;
	int64_t before = resident();
	gather(&many, MANY, patience_ns);
	int64_t grown = resident() - before;
	gather(&few, FEW, patience_ns);
	for (int i = 0; i < ROUNDS; i++) {
		race.time[0][i] = per_grant(&many);
		race.time[1][i] = per_grant(&few);
	}
	race_report(&race, 0, name, "ns", 1, "10^3-waiters", target);
	if (!patience_ns) {
		struct neap_engine_stats s;
		neap_engine_stats(many.engine, &s);
		double bytes = (double)s.bytes / MANY, held = (double)grown / MANY;
		race_line("waiter_bytes", bytes, "bytes", bytes / 128, "128-bytes", "<=1.0");
		race_line("waiter_resident", held, "bytes", held / 128, "128-bytes", NULL);
	}
	neap_engine_close(many.engine);
	neap_engine_close(few.engine);
}

int main(void)
{
	race_to("lines", 0, "<=2.0");
	race_to("lines_deadline", INT64_C(60000000000), NULL);
	return 0;
}

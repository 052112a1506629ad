/* SPDX-License-Identifier: MIT */
/* queue.h - the oracle of engine: everybody in one list, by arrival. queue.c has the essay. */
#ifndef QUEUE_H
#define QUEUE_H

#include "neap.h"

enum {
	QUEUE_LIMITERS = 5, QUEUE_ALLS = 5, QUEUE_TERMS = 4, QUEUE_LOG = 4,
	QUEUE_COSTS = 3, QUEUE_LINES = QUEUE_ALLS << QUEUE_COSTS, QUEUE_PEOPLE = 64,
};

/* Limiters and the alls over them. There are two, alike: the engine's and the model's. */
struct world {
	struct neap_limiter limiter[QUEUE_LIMITERS];
	struct neap_stamp log[QUEUE_LIMITERS][QUEUE_LOG];
	struct neap_term term[QUEUE_ALLS][QUEUE_TERMS];
	struct neap_all all[QUEUE_ALLS];
};

void world_copy(struct world *to, const struct world *from);
/* The limiters say the same; where their memory lies does not matter. */
int world_same(const struct world *a, const struct world *b);

struct queue_person {
	int64_t ticket, cost[NEAP_COSTS];
	neap_ns deadline;
	uint64_t arrival;
	int all;               /* -1: asleep */
	int moves;             /* from limiter to limiter, as a head */
};

struct queue {
	struct world world;
	neap_ns at;
	uint64_t arrivals;
	struct queue_person person[QUEUE_PEOPLE];   /* by arrival */
	int people;
	int stands_at[QUEUE_LINES], stands_by[QUEUE_LINES];   /* limiter and term of a line's head */
	neap_ns due[QUEUE_LIMITERS];                /* when the first before it is asked */
	int dirty[QUEUE_LIMITERS], dirt;
	int64_t urgent;                             /* ticket; 0: nobody */
	struct neap_completion ended[QUEUE_PEOPLE];
	int ends;
	int64_t wakeups;       /* how often the first before a limiter was to be asked */
};

void queue_advance(struct queue *q, neap_ns now);
/* What a newcomer is told: the first instant, or later than now; the term that binds. */
neap_ns queue_decide(struct queue *q, int all, const int64_t *cost, uint64_t arrival,
		     int32_t *term);
void queue_join(struct queue *q, int all, const int64_t *cost, neap_ns deadline, int64_t ticket);
void queue_sleep(struct queue *q, neap_ns until, int64_t ticket);
int queue_cancel(struct queue *q, int64_t ticket);
void queue_ask_again(struct queue *q, int limiter);
void queue_ask_all_again(struct queue *q, int all, int permits_alone);
/* No ticket ends by time before this. */
neap_ns queue_next(struct queue *q);
/* How many a newcomer is told go first. */
int queue_ahead(struct queue *q, int all, const int64_t *cost);
/* Somebody could go, and nobody asks: a bug of the model, or of the rules. */
int queue_is_stuck(struct queue *q);

#endif

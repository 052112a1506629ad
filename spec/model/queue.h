/* SPDX-License-Identifier: MIT */
/* queue.h - the oracle of engine: everybody in one list, by arrival. queue.c has the essay. */
#ifndef QUEUE_H
#define QUEUE_H

#include "neap.h"
#include "room.h"

enum {
	QUEUE_LIMITERS = 5, QUEUE_ALLS = 5, QUEUE_TERMS = 4, QUEUE_LOG = 4,
	QUEUE_COSTS = 3, QUEUE_ROOMS = 2, QUEUE_PEOPLE = 64,
	QUEUE_LINES = (QUEUE_ALLS << QUEUE_COSTS) + QUEUE_ROOMS,
};

/* Limiters and the alls over them. There are two, alike: the engine's and the model's. */
struct world {
	struct neap_limiter limiter[QUEUE_LIMITERS];
	struct neap_stamp log[QUEUE_LIMITERS][QUEUE_LOG];
	struct neap_term term[QUEUE_ALLS][QUEUE_TERMS];
	struct neap_all all[QUEUE_ALLS];
};

struct dice;
/* Few limiters of any kind, and alls over any of them... */
void world_any(struct dice *d, struct world *w);
/* ... and one where heads are overtaken at each of their limiters in turn: some ask several that are
 * slow, many one of these alone. */
void world_busy(struct dice *d, struct world *w);
void world_copy(struct world *to, const struct world *from);
/* The limiters say the same; where their memory lies does not matter. */
int world_same(const struct world *a, const struct world *b);

struct queue_person {
	int64_t ticket, cost[NEAP_COSTS];
	neap_ns deadline;
	uint64_t arrival, flow;
	int all;               /* -1: asleep */
	int room;              /* -1: in no waiting room */
	int32_t priority;
	int moves;             /* from limiter to limiter, as a head */
};

struct queue {
	struct world world;
	neap_ns at;
	uint64_t arrivals;
	struct room room[QUEUE_ROOMS];
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

/* One who would wait in a room has a place there, and is told: is it its turn, when could it go,
 * what binds, and whose place it takes. One of the next three follows. */
struct queue_visit {
	struct queue_person who;
	neap_ns when;
	int32_t term;
	uint32_t victim;      /* by arrival; 0: nobody */
	int turn, stood_at, was_first;
	int64_t was_urgent;
};
void queue_visit(struct queue *q, const struct queue_person *who, struct queue_visit *v);
void queue_withdraw(struct queue *q, const struct queue_visit *v);
/* It was granted, and its limiters are charged. */
void queue_granted(struct queue *q, const struct queue_visit *v);
void queue_stay(struct queue *q, const struct queue_visit *v, int64_t ticket);
int queue_visit_ahead(struct queue *q, const struct queue_visit *v);

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

/* ---- between queue.c and visit.c ---- */

int queue_line_of(const struct queue_person *p);
int queue_limiter_of(const struct queue *q, int all, int term);
/* What an all asks of the limiter of its term i, at the first of that limiter's terms. */
int64_t queue_asked(const struct neap_all *a, const int64_t *cost, int i);
/* From when on somebody younger may have 'sum' of a limiter of the urgent one's. */
neap_ns queue_spared(struct queue *q, int limiter, int64_t sum, uint64_t arrival);
/* The eldest head before a limiter; and of a line. */
struct queue_person *queue_first_at(struct queue *q, int limiter);
struct queue_person *queue_head_of(struct queue *q, int line);
struct queue_person *queue_arrive(struct queue *q, int64_t ticket, neap_ns deadline);
/* A room's head stands where it is held up; one that may go is asked, if not 'asking' now. */
void queue_stand_anew(struct queue *q, int line, int asking);
/* Whoever was first there has left without having been asked. */
void queue_vacated(struct queue *q, int limiter);
void queue_drop(struct queue *q, struct queue_person *p, int status);
void queue_settle_down(struct queue *q);

#endif

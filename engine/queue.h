/* SPDX-License-Identifier: MIT */
/* queue.h - a bounded waiting room. Private to ring 1; queue.c and flow.c have the essays. */
#ifndef NEAP_QUEUE_H
#define NEAP_QUEUE_H

#include "heap.h"
#include "line.h"

/* What is kept of one who waits here. */
struct neap_entry {
	struct neap_request request;
	uint64_t arrival;    /* counts up */
	neap_ns since;       /* when it came */
	uint32_t waiter;     /* what the engine calls it */
};

struct neap_place {
	struct neap_entry entry;
	uint32_t flow;              /* 0: nobody's */
	uint32_t next, prev;        /* in its flow, by arrival; next: of those free, too */
	uint32_t younger, elder;    /* in its class */
};

/* Those of one key and one priority. */
struct neap_flow {
	struct neap_key key;        /* of: its class, which stays where it is; tag: the hash */
	struct neap_node node;      /* in the class's heap; rank is the start tag */
	uint32_t class;
	uint32_t head, tail, count; /* places */
	uint32_t newer, older;      /* idle, by when they became it */
	int32_t mixed;              /* 1: not all who wait ask the same limiters */
	neap_sum queued[NEAP_COSTS];
};

/* Those of one priority. */
struct neap_class {
	struct neap_key key;        /* of: the queue; tag: the priority */
	struct neap_node turn;      /* among classes, by whose turn it is */
	struct neap_node fate;      /* among classes, by who has to go */
	neap_sum virtual;           /* time; see flow.c */
	uint32_t first;             /* flow: the heap's first */
	uint32_t oldest, newest;    /* places */
	uint32_t flows, waiting;    /* all that there are, and those with waiters */
};

struct neap_queue {
	struct neap_place *place;   /* [capacity + 2], from 1 */
	struct neap_roster flow, class;
	neap_ns ageing_ns;
	uint32_t capacity, count;
	uint32_t untouched, free;   /* places never used; list, by next */
	uint32_t best, fated;       /* classes: heaps' firsts */
	uint32_t idle, idle_last;   /* flows, the one idle longest first */
	int32_t overflow;
	struct neap_queue_stats stats;
};

static inline struct neap_flow *neap_flow_at(const struct neap_queue *q, uint32_t name)
{
	return (struct neap_flow *)(void *)(q->flow.record + name * sizeof(struct neap_flow));
}

static inline struct neap_class *neap_class_at(const struct neap_queue *q, uint32_t name)
{
	return (struct neap_class *)(void *)(q->class.record + name * sizeof(struct neap_class));
}

/* ---- flow.c ---- */

/* The flow of a newcomer, who is to join at once: with nobody in it, it is in no list. */
uint32_t neap_flow_for(struct neap_queue *q, const struct neap_entry *entry);
/* At the end of a flow. */
void neap_flow_join(struct neap_queue *q, uint32_t flow, uint32_t place);
/* Out of its flow, which may then be forgotten; a grant has 'cost', everything else 0. */
void neap_flow_leave(struct neap_queue *q, uint32_t place, int64_t cost);
int neap_flows_check(const struct neap_queue *q);

/* ---- queue.c ---- */

/* Take a place: its name. There is one to spare above the capacity, for a newcomer that turns out
 * to go at once, or for whom _victim has to go. */
uint32_t neap_queue_join(struct neap_queue *q, const struct neap_entry *entry);
/* Out of its place, from anywhere, and nothing is charged to its flow... */
void neap_queue_leave(struct neap_queue *q, uint32_t place);
/* ... or its turn has come, and its costs are. */
void neap_queue_serve(struct neap_queue *q, uint32_t place);

/* Whose turn it is; 0 when nobody waits. */
uint32_t neap_queue_first(const struct neap_queue *q);
/* Who has to go now that this newcomer has joined: 0 while there are places, or else a resident's
 * place, or the newcomer's own. */
uint32_t neap_queue_victim(const struct neap_queue *q, uint32_t newcomer);
/* Whose turn it is, if that one goes before this newcomer for certain, when 'victim' goes; or 0. */
uint32_t neap_queue_before(const struct neap_queue *q, uint32_t newcomer, uint32_t victim);
/* How many go before it for certain: those of its flow, and the one of _before. In queued[NEAP_COSTS], the costs of those that ask the same limiters as it
 * does; none of its flow's when not all do. */
int64_t neap_queue_ahead(const struct neap_queue *q, uint32_t newcomer, uint32_t victim,
			 neap_sum *queued);
int neap_entry_asks_the_same(const struct neap_entry *a, const struct neap_entry *b);

#endif

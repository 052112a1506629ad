/* SPDX-License-Identifier: MIT */
/* ticket.c - what a wait is called, and how it ends.
 *
 * A ticket is generation << 24 | index: a number that Lua holds exactly, that finds its record
 * without a search, and that is not mistaken for the next one to use the record. A record is its
 * ticket's from the beginning to the drain, so there is always room for its completion:
 *
 *     free ---> WAITING or SLEEPING ---> ENDED ---> drained, free again
 *
 * An arrival is the instant of it plus 1, or, when that is taken, the next one that is not: unique,
 * in the order in which they came, and above 0. Who comes as the n-th at one instant is taken for n
 * ns later, which on a real clock is the truth, or nothing.
 *
 * Completions are a list through the records, in the order in which they happened. Free records are
 * used in the order in which they became free, so that generations are used up evenly.
 */
#include "engine.h"

enum { INDEX_BITS = 24, GENERATIONS = 1 << 29 };

int64_t neap_ticket_of(struct neap_engine *e, uint32_t name)
{
	return (int64_t)waiter(e, name)->generation << INDEX_BITS | (name - 1);
}

uint32_t neap_ticket_find(struct neap_engine *e, int64_t ticket)
{
	uint32_t name = ((uint32_t)ticket & ((1 << INDEX_BITS) - 1)) + 1;
	int known = ticket > 0 && name <= e->untouched && ticket == neap_ticket_of(e, name) &&
		    waiter(e, name)->state != FREE;
	return known ? name : 0;
}

uint64_t neap_ticket_arrival(const struct neap_engine *e)
{
	uint64_t next = (uint64_t)e->at + 1;
	return e->arrival < next ? next : e->arrival + 1;
}

uint32_t neap_ticket_begin(struct neap_engine *e)
{
	uint32_t name = e->free;
	if (name)
		e->free = waiter(e, name)->next;
	else if (e->untouched < e->waiters_max)
		name = ++e->untouched;
	else
		return 0;
	struct neap_waiter *w = waiter(e, name);
	w->generation = w->generation % (GENERATIONS - 1) + 1;
	w->arrival = e->arrival = neap_ticket_arrival(e);
	w->next = w->prev = w->line = 0;
	return name;
}

void neap_ticket_wait(struct neap_engine *e, uint32_t name, const struct neap_request *r,
		      struct neap_answer *a)
{
	struct neap_waiter *w = waiter(e, name);
	for (int i = 0; i < NEAP_COSTS; i++)
		if (r->cost[i])
			w->cost[i] = r->cost[i];
	w->deadline = r->deadline;
	w->state = WAITING;
	e->stats.waiting++;
	a->status = NEAP_WAITING;
	a->ticket = neap_ticket_of(e, name);
}

void neap_ticket_end(struct neap_engine *e, uint32_t name, int status, int32_t bound, uint64_t on)
{
	struct neap_waiter *w = waiter(e, name);
	neap_wheel_cancel(e->wheel, name - 1);
	w->state = (int16_t)(ENDED + status);
	w->bound = (int16_t)bound;
	w->deadline = e->at;
	w->arrival = on;
	w->next = 0;
	*(e->ended ? &waiter(e, e->ended_last)->next : &e->ended) = name;
	e->ended_last = name;
	e->stats.completed++;
	e->stats.granted += status == NEAP_GRANTED;
}

int64_t neap_engine_drain(struct neap_engine *e, struct neap_completion *out, int64_t max)
{
	int64_t n = 0;
	for (; n < max && e->ended; n++) {
		uint32_t name = e->ended;
		struct neap_waiter *w = waiter(e, name);
		out[n] = (struct neap_completion){neap_ticket_of(e, name), w->deadline,
						  w->state - ENDED, w->bound, w->arrival};
		e->ended = w->next;
		w->state = FREE;
		w->next = 0;
		*(e->free ? &waiter(e, e->free_last)->next : &e->free) = name;
		e->free_last = name;
	}
	e->stats.completed -= n;
	return n;
}

/* SPDX-License-Identifier: MIT */
/* visit.c - who comes to a waiting room of the oracle of engine, and stays or not. */
#include "queue.h"

#include <string.h>

void queue_visit(struct queue *q, const struct queue_person *who, struct queue_visit *v)
{
	static const struct neap_all name_of[QUEUE_ALLS];   /* the worlds come and go */
	struct room *room = &q->room[who->room];
	int line = queue_line_of(who);
	struct room_person o = {
		.all = &name_of[who->all], .key = who->flow, .arrival = q->arrivals + 1,
		.since = q->at, .priority = who->priority, .name = (uint32_t)q->arrivals + 1,
	};
	memcpy(o.cost, who->cost, sizeof o.cost);
	struct queue_person *head = queue_head_of(q, line);
	*v = (struct queue_visit){.who = *who, .stood_at = head ? q->stands_at[line] : -1};
	v->was_first = head && queue_first_at(q, v->stood_at) == head;
	room_join(room, &o);
	v->turn = room_first(room) == o.name;
	v->victim = room_victim(room);
	if (v->turn && head && q->urgent == head->ticket) {
		v->was_urgent = q->urgent;
		q->urgent = 0;
	}
	if (v->turn)
		q->stands_at[line] = -1;
	v->when = queue_decide(q, who->all, who->cost, UINT64_MAX, &v->term);
}

void queue_withdraw(struct queue *q, const struct queue_visit *v)
{
	room_go(&q->room[v->who.room], (uint32_t)q->arrivals + 1, 0);
	if (v->was_urgent)
		q->urgent = v->was_urgent;
	if (v->turn)
		q->stands_at[queue_line_of(&v->who)] = v->stood_at;
}

/* It was its turn: the line stands anew. */
static void take_turn(struct queue *q, const struct queue_visit *v)
{
	int line = queue_line_of(&v->who);
	if (v->was_urgent)
		q->urgent = v->was_urgent;
	queue_stand_anew(q, line, -1);
	struct queue_person *first = v->was_first ? queue_first_at(q, v->stood_at) : NULL;
	if (v->was_first && (!first || queue_line_of(first) != line))
		queue_vacated(q, v->stood_at);
}

void queue_granted(struct queue *q, const struct queue_visit *v)
{
	room_go(&q->room[v->who.room], (uint32_t)q->arrivals + 1, 1);
	take_turn(q, v);
	queue_settle_down(q);
}

void queue_stay(struct queue *q, const struct queue_visit *v, int64_t ticket)
{
	struct queue_person *p = queue_arrive(q, ticket, v->who.deadline);
	uint64_t arrival = p->arrival;
	*p = v->who;
	p->ticket = ticket;
	p->arrival = arrival;
	if (v->turn)
		take_turn(q, v);
	queue_settle_down(q);
	if (!room_victim(&q->room[v->who.room]))
		return;   /* the turn of another made room */
	for (p = q->person; p < q->person + q->people; p++)
		if (p->room == v->who.room && (uint32_t)p->arrival == v->victim) {
			queue_drop(q, p, NEAP_QUEUE_FULL);
			return;
		}
}

int queue_visit_ahead(struct queue *q, const struct queue_visit *v)
{
	room_sum queued[NEAP_COSTS];
	const struct neap_all *a = &q->world.all[v->who.all];
	int most = room_ahead(&q->room[v->who.room], (uint32_t)q->arrivals + 1, queued);
	for (int i = 0; i < a->count; i++) {
		int ahead = 0, limiter = queue_limiter_of(q, v->who.all, i);
		if (!queue_asked(a, v->who.cost, i))
			continue;
		for (struct queue_person *p = q->person; p < q->person + q->people; p++)
			ahead += p->all >= 0 && p->room != v->who.room &&
				 (q->stands_at[queue_line_of(p)] == limiter ||
				  (p->ticket == q->urgent &&
				   queue_spared(q, limiter, queue_asked(a, v->who.cost, i), UINT64_MAX) > q->at));
		most = ahead > most ? ahead : most;
	}
	return most;
}

/* SPDX-License-Identifier: MIT */
/* front.c - the front of a queue: whose turn it is, and where it stands.
 *
 * To limiters and posts a queue is one line. What is different is its head: it changes not only when
 * it goes but when somebody comes who has precedence, and no two heads need ask the same. So a
 * queue's line stands anew for every head, by what that one asks:
 *
 *      queue  [a1 a2 b1]  head a1 ------------- stands before "500/min"
 *        join c1, priority 9
 *      queue  [a1 a2 b1]  head c1 -- may go --> granted at once, a1 stands where it stood
 *                                 \- has to --> stands before "64 in flight"; whoever stood
 *                                    wait       behind a1 at "500/min" is asked now
 *
 * A newcomer takes a place first and is asked then, because only the queue knows whether it is its
 * turn: there is one place to spare for that. Whether it is worth its wait is known before anybody
 * has to make room for it, so no deadline that cannot be met costs another his place.
 *
 * A head that loses its turn is not urgent any more, and begins to count its moves anew when it has
 * it again: among themselves those of a queue go by its rules alone.
 */
#include "engine.h"
#include "queue.h"

/* A newcomer that has a place, and perhaps the turn. */
struct visit {
	struct neap_asked *asked;
	struct neap_queue *queue;
	uint32_t line;        /* the queue's; 0: nobody waits there */
	uint32_t place;
	uint32_t victim;      /* see neap_queue_victim */
	int32_t turn;         /* 1: it is the first, and the line ... */
	uint32_t post;        /* ... has stepped back from here; 0: there is none. Whose head ... */
	int32_t was_first;    /* ... was the first there, ... */
	int32_t was_urgent;   /* ... and urgent, which it is not before one who precedes it */
};

/* ---- standing ---- */

void neap_front_stand(struct neap_engine *e, uint32_t line, uint32_t asking)
{
	struct neap_line *l = neap_line_at(&e->lines, line);
	uint32_t was = l->head;
	neap_line_turn(&e->lines, line);
	if (was && was == e->lines.urgent && was != l->head)
		neap_turn_relieve(e);
	const struct neap_waiter *w = waiter(e, l->head);
	struct neap_asked a;
	neap_asked_ready(&a, l->all, w->cost, l->keys, e->at, NEAP_WANT);
	struct neap_verdict v = neap_lines_decide(&e->lines, &a, w->arrival, e->at);
	int ends = v.term < 0 || v.shed || v.at == neap_never;
	int32_t term = v.term < 0 ? neap_term_at(&e->lines, &a, asking) : v.term;
	int first = neap_turn_stand(e, line, &a, term);
	if (first && !ends)
		neap_post_at(&e->lines, l->post)->due = v.at;
	neap_turn_arm(e, l->head);
	if (first && ends && l->post != asking)
		neap_turn_mark(e, l->post);
	if (e->lines.urgent == l->head)
		neap_turn_ask_held_up(e);   /* the instant at which it goes may be another */
}

int32_t neap_front_term(const struct neap_engine *e, uint32_t name)
{
	const struct neap_line *l = neap_line_of(&e->lines, name);
	const struct neap_all *all = neap_line_asks(&e->lines, name);
	if (all == l->all)
		return l->term;
	int32_t term = 0;
	while (!neap_waiter_at(&e->lines, name)->cost[all->terms[term].cost])
		term++;
	return term;
}

/* ---- a newcomer is asked ---- */

static neap_ns predict(struct neap_engine *e, const struct visit *v, struct neap_answer *a)
{
	struct neap_before b = {
		.line = v->line, .left = v->was_first ? v->post : 0, .was_urgent = v->was_urgent,
		.head_goes = neap_queue_before(v->queue, v->place, v->victim) != 0,
	};
	b.count = neap_queue_ahead(v->queue, v->place, v->victim, b.queued);
	neap_ns at = neap_lines_predict_in(&e->lines, v->asked, &b, e->at, &a->bound, &a->ahead);
	return at > e->at ? at : e->at + 1;   /* others go first; how long that takes nobody knows */
}

static void ask(struct neap_engine *e, const struct visit *v, struct neap_answer *a)
{
	struct neap_verdict verdict = neap_lines_decide(&e->lines, v->asked, UINT64_MAX, e->at);
	*a = (struct neap_answer){.status = NEAP_GRANTED, .at = verdict.at,
				  .bound = verdict.term, .on = v->asked->on};
	if (verdict.shed) {
		a->status = NEAP_SHED;
	} else if (verdict.at == neap_never) {
		a->status = NEAP_NEVER;
	} else if (verdict.at > e->at || !v->turn) {
		a->status = NEAP_REFUSED;
		if (a->bound < 0)
			a->bound = neap_term_at(&e->lines, v->asked, 0);
		a->at = predict(e, v, a);
	}
}

/* Take a place. When it is its turn, nobody of the queue stands before it. */
static void come(struct neap_engine *e, const struct neap_request *r, int how,
		 struct neap_asked *asked, struct visit *v)
{
	struct neap_entry entry = {
		.request = *r, .arrival = neap_ticket_arrival(e), .since = e->at};
	*v = (struct visit){.asked = asked, .queue = r->queue};
	v->line = neap_roster_find(&e->lines.line, r->queue, 0);
	v->place = neap_queue_join(r->queue, &entry);
	v->victim = neap_queue_victim(r->queue, v->place);
	v->turn = neap_queue_first(r->queue) == v->place;
	if (v->turn && v->line) {
		const struct neap_line *l = neap_line_at(&e->lines, v->line);
		v->post = l->post;
		v->was_first = neap_post_at(&e->lines, l->post)->first == v->line;
		v->was_urgent = e->lines.urgent == l->head;
		if (v->was_urgent)
			e->lines.urgent = 0;
		neap_line_step_back(&e->lines, v->line);
	}
	neap_asked_ready(asked, r->all, r->cost, r->key, e->at, how);
}

/* Nobody has come before the head, which is as it was. */
static void restore(struct neap_engine *e, const struct visit *v)
{
	if (v->was_urgent)
		e->lines.urgent = neap_line_at(&e->lines, v->line)->head;
}

/* Give the place up, as if nobody had come. */
static void withdraw(struct neap_engine *e, const struct visit *v)
{
	neap_queue_leave(v->queue, v->place);
	restore(e, v);
	if (v->post)   /* whose due is what it was */
		neap_line_stand(&e->lines, v->line, v->post,
				neap_line_at(&e->lines, v->line)->term);
}

/* The line, which has stepped back, stands for whoever is the first now. */
static void stand_anew(struct neap_engine *e, const struct visit *v)
{
	restore(e, v);
	neap_front_stand(e, v->line, 0);
	if (v->was_first && neap_post_at(&e->lines, v->post)->first != v->line)
		neap_turn_vacated(e, v->post);
}

void neap_front_peek(struct neap_engine *e, const struct neap_request *r, struct neap_asked *asked,
		     struct neap_answer *a)
{
	struct visit v;
	come(e, r, NEAP_LOOK, asked, &v);
	ask(e, &v, a);
	withdraw(e, &v);
}

/* 1: refused, and it still has its place. */
static int try(struct neap_engine *e, const struct neap_request *r, struct neap_asked *asked,
	       struct visit *v, struct neap_answer *a)
{
	come(e, r, NEAP_WANT, asked, v);
	do
		ask(e, v, a);   /* again when another thread was faster */
	while (a->status == NEAP_GRANTED && neap_asked_take(asked, e->at) > e->at);
	if (a->status == NEAP_REFUSED)
		return 1;
	if (a->status != NEAP_GRANTED) {
		withdraw(e, v);
		return 0;
	}
	neap_queue_serve(v->queue, v->place);
	if (v->post)
		stand_anew(e, v);
	neap_turn_settle(e);
	return 0;
}

void neap_front_try(struct neap_engine *e, const struct neap_request *r, struct neap_asked *asked,
		    struct neap_answer *a)
{
	struct visit v;
	if (try(e, r, asked, &v, a))
		withdraw(e, &v);
}

/* ---- and waits ---- */

static int reserve_line(struct neap_engine *e)
{
	uint32_t lines = e->lines.line.count;
	return neap_roster_reserve(&e->lines.line, lines + 1) ||
	       neap_roster_reserve(&e->lines.post, lines + 2);
}

/* It stays in its place. */
static void stay(struct neap_engine *e, const struct neap_request *r, struct visit *v, uint32_t name,
		 struct neap_answer *a)
{
	neap_ticket_wait(e, name, r, a);
	if (!v->line) {
		v->line = neap_roster_add(&e->lines.line, v->queue, 0);
		neap_line_at(&e->lines, v->line)->queue = v->queue;
	}
	uint32_t was_head = neap_line_at(&e->lines, v->line)->head;
	neap_line_enter(&e->lines, v->line, name, v->place);
	if (!v->turn)
		neap_turn_arm(e, name);
	else if (v->post)
		stand_anew(e, v);
	else
		neap_front_stand(e, v->line, 0);
	if (v->turn && was_head)
		neap_turn_arm(e, was_head);   /* its deadline alone */
	neap_turn_settle(e);
	uint32_t victim = neap_queue_victim(v->queue, v->place);
	if (victim) {   /* still: what stood behind who lost its turn has gone, and others after it */
		v->queue->stats.dropped++;
		neap_turn_drop(e, v->queue->place[victim].entry.waiter, NEAP_QUEUE_FULL);
	}
}

int neap_front_acquire(struct neap_engine *e, const struct neap_request *r,
		       struct neap_asked *asked, struct neap_answer *a)
{
	struct visit v;
	if (!try(e, r, asked, &v, a))
		return NEAP_OK;
	if (v.victim == v.place) {
		a->status = NEAP_QUEUE_FULL;
		v.queue->stats.refused++;
		withdraw(e, &v);
		return NEAP_OK;
	}
	if (r->deadline <= e->at || (a->at > r->deadline && a->at < neap_on_give)) {
		a->status = NEAP_TIMEOUT;
		withdraw(e, &v);
		return NEAP_OK;
	}
	if (!v.line && reserve_line(e)) {
		withdraw(e, &v);
		return NEAP_ENOMEM;
	}
	uint32_t name = neap_ticket_begin(e);
	if (name) {
		stay(e, r, &v, name, a);
		return NEAP_OK;
	}
	a->status = NEAP_QUEUE_FULL;
	withdraw(e, &v);
	return NEAP_OK;
}

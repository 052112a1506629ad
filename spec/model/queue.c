/* SPDX-License-Identifier: MIT */
/* queue.c - the rules of waiting, without anything that makes them fast.
 *
 * One array of people in order of arrival, searched from the front for every question. The rules,
 * as line.c and engine.c state them:
 *
 *   Those who ask one all for the same kinds of cost are a line; its head is the eldest of them.
 *   A head stands before the limiter that held it up when it was last asked.
 *   Nobody passes a limiter while somebody who arrived before him stands there.
 *   The eldest head before a limiter is asked at the instant it was told, and when a permit or a
 *   refund comes, or the one before it is gone.
 *   At one instant the heads that are to be asked are asked first, always the eldest of them; then
 *   sleepers wake and those whose deadline it is give up, in order of arrival.
 *   In a waiting room (room.c) it is said there whose turn it is; that one is the head. When another
 *   is, it is asked where it stands, and the first before the limiter where the one before stood.
 *   A head that has moved 8 times is urgent, if nobody older is. Nobody younger takes of a limiter
 *   what would make it come later. When it was asked and stays, and when it ends, those who stand
 *   first before its limiters are to be asked.
 */
#include "queue.h"

#include <string.h>

/* ---- who stands where ---- */

int queue_line_of(const struct queue_person *p)
{
	int mask = 0;
	if (p->room >= 0)
		return (QUEUE_ALLS << QUEUE_COSTS) + p->room;
	for (int i = 0; i < QUEUE_COSTS; i++)
		mask |= (p->cost[i] > 0) << i;
	return p->all * (1 << QUEUE_COSTS) + mask;
}

static int is_head(const struct queue *q, const struct queue_person *p)
{
	if (p->all >= 0 && p->room >= 0)
		return room_first(&q->room[p->room]) == (uint32_t)p->arrival;
	for (const struct queue_person *o = q->person; o < p; o++)
		if (o->all >= 0 && queue_line_of(o) == queue_line_of(p))
			return 0;
	return p->all >= 0;
}

/* The eldest head before a limiter. */
struct queue_person *queue_first_at(struct queue *q, int limiter)
{
	for (struct queue_person *p = q->person; p < q->person + q->people; p++)
		if (is_head(q, p) && q->stands_at[queue_line_of(p)] == limiter)
			return p;
	return NULL;
}

int queue_limiter_of(const struct queue *q, int all, int term)
{
	return (int)(q->world.term[all][term].limiter - q->world.limiter);
}

/* What an all asks of the limiter of its term i, at the first of that limiter's terms. */
int64_t queue_asked(const struct neap_all *a, const int64_t *cost, int i)
{
	int64_t sum = 0;
	if (i && a->terms[i].limiter == a->terms[i - 1].limiter)
		return 0;
	for (int j = i; j < a->count; j++)
		if (a->terms[j].limiter == a->terms[i].limiter)
			sum += a->terms[j].multiplier * cost[a->terms[j].cost];
	return sum;
}

static struct queue_person *find(struct queue *q, int64_t ticket)
{
	for (struct queue_person *p = q->person; p < q->person + q->people; p++)
		if (p->ticket == ticket)
			return p;
	return NULL;
}

/* What somebody asks of a limiter. */
static int64_t asks_of(const struct queue *q, const struct queue_person *p, int limiter)
{
	for (int i = 0; i < q->world.all[p->all].count; i++)
		if (queue_limiter_of(q, p->all, i) == limiter)
			return queue_asked(&q->world.all[p->all], p->cost, i);
	return 0;
}

/* From when on somebody younger may have 'sum' of a limiter of the urgent one's. */
neap_ns queue_spared(struct queue *q, int limiter, int64_t sum, uint64_t arrival)
{
	struct queue_person *u = q->urgent ? find(q, q->urgent) : NULL;
	struct neap_limiter *l = &q->world.limiter[limiter];
	int64_t own = u && u->arrival < arrival ? asks_of(q, u, limiter) : 0;
	if (!own)
		return q->at;
	int stands = q->stands_at[queue_line_of(u)];
	neap_ns goes = queue_first_at(q, stands) == u ? q->due[stands] : neap_on_give;
	if (goes == neap_on_give || goes < q->at)
		goes = q->at;
	if (neap_limiter_after(l, sum, own, q->at) <= goes)
		return q->at;
	neap_ns both = neap_limiter_when(l, sum + own, q->at);
	return both > q->at && both < neap_never ? both : neap_on_give;
}

neap_ns queue_decide(struct queue *q, int all, const int64_t *cost, uint64_t arrival,
		     int32_t *term)
{
	const struct neap_all *a = &q->world.all[all];
	neap_ns latest = q->at;
	*term = -1;
	for (int i = 0; i < a->count; i++) {
		int64_t sum = queue_asked(a, cost, i);
		if (!sum)
			continue;
		neap_ns when = neap_limiter_when(a->terms[i].limiter, sum, q->at);
		const struct queue_person *first = queue_first_at(q, queue_limiter_of(q, all, i));
		if (first && first->arrival < arrival && when != neap_never)
			when = neap_on_give;
		neap_ns spare = queue_spared(q, queue_limiter_of(q, all, i), sum, arrival);
		if (spare > when && when < neap_on_give)
			when = spare;
		if (when > latest) {
			latest = when;
			*term = i;
		}
	}
	return latest;
}

/* ---- asking ---- */

static void mark(struct queue *q, int limiter)
{
	for (int i = 0; i < q->dirt; i++)
		if (q->dirty[i] == limiter)
			return;
	q->dirty[q->dirt++] = limiter;
	q->wakeups++;
}

static void unmark(struct queue *q, int limiter)
{
	for (int i = 0; i < q->dirt; i++)
		if (q->dirty[i] == limiter)
			q->dirty[i--] = q->dirty[--q->dirt];
}

/* Those before the limiters of 'u', who is or was urgent, are to be asked, but not itself. */
static void ask_held_up(struct queue *q, const struct queue_person *u)
{
	for (int l = 0; l < QUEUE_LIMITERS; l++)
		if (asks_of(q, u, l) && queue_first_at(q, l) &&
		    (q->urgent != u->ticket || q->stands_at[queue_line_of(u)] != l))
			mark(q, l);
}

struct queue_person *queue_head_of(struct queue *q, int line)
{
	for (struct queue_person *p = q->person; p < q->person + q->people; p++)
		if (is_head(q, p) && queue_line_of(p) == line)
			return p;
	return NULL;
}

static void end(struct queue *q, struct queue_person *p, int status, int32_t bound)
{
	struct queue_person gone = *p;
	const struct queue_person *head = p->room >= 0 ? queue_head_of(q, queue_line_of(p)) : NULL;
	uint64_t arrival = head ? head->arrival : 0;
	q->ended[q->ends++] = (struct neap_completion){p->ticket, q->at, status, bound, 0};
	if (p->room >= 0)
		room_go(&q->room[p->room], (uint32_t)p->arrival, status == NEAP_GRANTED);
	memmove(p, p + 1, (size_t)(q->person + q->people - p - 1) * sizeof *p);
	q->people--;
	head = gone.room >= 0 ? queue_head_of(q, queue_line_of(&gone)) : NULL;
	if (head && head->arrival != arrival)
		q->stands_at[queue_line_of(&gone)] = -1;   /* until the next head does */
	if (q->urgent == gone.ticket) {
		q->urgent = 0;
		ask_held_up(q, &gone);
	}
}

static void move(struct queue *q, struct queue_person *p, int to, neap_ns when)
{
	struct queue_person *u = q->urgent ? find(q, q->urgent) : NULL;
	q->stands_at[queue_line_of(p)] = to;
	if (queue_first_at(q, to) == p) {
		q->due[to] = when;
		unmark(q, to);   /* it was asked just now */
	}
	if (++p->moves < 8 || (u && u->arrival < p->arrival))
		return;
	q->urgent = p->ticket;
	if (u && u != p)
		ask_held_up(q, u);
}

/* The term for which somebody is at a limiter, or the first that is asked at all. */
static int32_t term_at(struct queue *q, const struct queue_person *p, int limiter)
{
	const struct neap_all *a = &q->world.all[p->all];
	int32_t any = -1;
	for (int32_t i = 0; i < a->count; i++) {
		if (!p->cost[a->terms[i].cost])
			continue;
		if (queue_limiter_of(q, p->all, i) == limiter)
			return i;
		any = any < 0 ? i : any;
	}
	return any;
}

/* A room's head stands where it is held up; one that may go is asked, if not 'asking' now. Whoever
 * was head before begins anew when it is again. */
void queue_stand_anew(struct queue *q, int line, int asking)
{
	int32_t term;
	struct queue_person *p = queue_head_of(q, line), *u = q->urgent ? find(q, q->urgent) : NULL;
	q->stands_at[line] = -1;
	for (struct queue_person *o = q->person; o < q->person + q->people; o++)
		if (o != p && o->all >= 0 && queue_line_of(o) == line)
			o->moves = 0;
	if (!p)
		return;
	if (u && u != p && queue_line_of(u) == line) {
		q->urgent = 0;
		ask_held_up(q, u);
	}
	neap_ns when = queue_decide(q, p->all, p->cost, p->arrival, &term);
	int ends = term < 0 || when == neap_never;
	term = term < 0 ? term_at(q, p, asking) : term;
	int to = queue_limiter_of(q, p->all, term);
	q->stands_at[line] = to;
	q->stands_by[line] = term;
	if (queue_first_at(q, to) == p) {
		q->due[to] = ends ? neap_on_give : when;
		if (to != asking)
			unmark(q, to);
		if (ends && to != asking)
			mark(q, to);
	}
	if (q->urgent == p->ticket)
		ask_held_up(q, p);
}

/* Whoever was first there has left without having been asked. */
void queue_vacated(struct queue *q, int limiter)
{
	unmark(q, limiter);
	if (queue_first_at(q, limiter))
		mark(q, limiter);
}

/* Ask the first before a limiter. Is there another to be asked, now that it is gone? */
static int ask_first(struct queue *q, int limiter)
{
	int32_t term;
	struct queue_person *p = queue_first_at(q, limiter);
	if (!p)
		return 0;
	neap_ns when = queue_decide(q, p->all, p->cost, p->arrival, &term);
	if (when <= q->at)
		when = neap_all_claim(&q->world.all[p->all], p->cost, q->at, &term);
	if (when <= q->at || when == neap_never) {
		int line = queue_line_of(p), room = p->room;
		end(q, p, when <= q->at ? NEAP_GRANTED : NEAP_NEVER, when <= q->at ? -1 : term);
		if (room >= 0)
			queue_stand_anew(q, line, limiter);
		return 1;
	}
	int to = queue_limiter_of(q, p->all, term);
	q->stands_by[queue_line_of(p)] = term;
	if (to == limiter)
		q->due[limiter] = when;
	else
		move(q, p, to, when);
	if (q->urgent == p->ticket)
		ask_held_up(q, p);
	return to != limiter;
}

static uint64_t rank_of(struct queue *q, int limiter)
{
	const struct queue_person *first = queue_first_at(q, limiter);
	return first ? first->arrival : 0;
}

void queue_settle_down(struct queue *q)
{
	while (q->dirt) {
		int eldest = 0;
		for (int i = 1; i < q->dirt; i++)
			if (rank_of(q, q->dirty[i]) < rank_of(q, q->dirty[eldest]))
				eldest = i;
		int limiter = q->dirty[eldest];
		if (!ask_first(q, limiter))
			unmark(q, limiter);
	}
}

/* Nobody is woken where nobody stands. */
static void mark_if_any(struct queue *q, int limiter)
{
	if (queue_first_at(q, limiter))
		mark(q, limiter);
}

void queue_ask_again(struct queue *q, int limiter)
{
	mark_if_any(q, limiter);
	queue_settle_down(q);
}

void queue_ask_all_again(struct queue *q, int all, int permits_alone)
{
	for (int i = 0; i < q->world.all[all].count; i++) {
		int kind = q->world.all[all].terms[i].limiter->kind;
		if (!permits_alone || kind == NEAP_SEMAPHORE || kind == NEAP_ADAPTIVE)
			mark_if_any(q, queue_limiter_of(q, all, i));
	}
	queue_settle_down(q);
}

void queue_drop(struct queue *q, struct queue_person *p, int status)
{
	int line = queue_line_of(p), limiter = q->stands_at[line], is_room = p->room >= 0;
	const struct queue_person *head = queue_head_of(q, line), *first = queue_first_at(q, limiter);
	int was_head = head == p, was_first = first == head;
	uint64_t arrival = head->arrival;
	int32_t term = q->stands_by[line];
	if (head->all != p->all)
		term = term_at(q, p, -1);
	end(q, p, status, status == NEAP_TIMEOUT ? term : -1);
	head = queue_head_of(q, line);
	if (is_room && head && head->arrival != arrival) {
		queue_stand_anew(q, line, -1);
		first = queue_first_at(q, limiter);
		if (was_first && (!first || queue_line_of(first) != line))
			queue_vacated(q, limiter);
	} else if (was_first && was_head) {
		mark(q, limiter);
	}
	queue_settle_down(q);
}

/* ---- time ---- */

static neap_ns timer_of(struct queue *q, struct queue_person *p)
{
	neap_ns due = p->deadline;
	if (p->all >= 0 && is_head(q, p)) {
		int limiter = q->stands_at[queue_line_of(p)];
		if (queue_first_at(q, limiter) == p && q->due[limiter] < due)
			due = q->due[limiter];
	}
	return due;
}

neap_ns queue_next(struct queue *q)
{
	neap_ns next = neap_never;
	for (struct queue_person *p = q->person; p < q->person + q->people; p++) {
		neap_ns timer = timer_of(q, p);
		if (timer < neap_on_give && timer > neap_horizon)
			timer = neap_horizon;
		if (timer < next && timer < neap_on_give)
			next = timer;
	}
	return next;
}

/* All that is due at this instant. */
static void happen(struct queue *q)
{
	int64_t due[QUEUE_PEOPLE];
	int count = 0;
	for (struct queue_person *p = q->person; p < q->person + q->people; p++) {
		if (timer_of(q, p) > q->at)
			continue;
		due[count++] = p->ticket;
		int limiter = p->all < 0 ? -1 : q->stands_at[queue_line_of(p)];
		if (is_head(q, p) && queue_first_at(q, limiter) == p && q->due[limiter] <= q->at)
			mark(q, limiter);
	}
	queue_settle_down(q);
	for (int i = 0; i < count; i++) {
		struct queue_person *p = find(q, due[i]);
		if (p && p->all < 0)
			end(q, p, NEAP_WOKEN, -1);
		else if (p && p->deadline <= q->at)
			queue_drop(q, p, NEAP_TIMEOUT);
	}
}

void queue_advance(struct queue *q, neap_ns now)
{
	now = now > q->at ? now : q->at;
	for (neap_ns due; (due = queue_next(q)) <= now;) {
		q->at = due > q->at ? due : q->at;
		happen(q);
	}
	q->at = now;
}

/* ---- coming and going ---- */

struct queue_person *queue_arrive(struct queue *q, int64_t ticket, neap_ns deadline)
{
	struct queue_person *p = &q->person[q->people++];
	*p = (struct queue_person){
		.ticket = ticket, .deadline = deadline, .arrival = ++q->arrivals, .all = -1,
		.room = -1};
	return p;
}

void queue_join(struct queue *q, int all, const int64_t *cost, neap_ns deadline, int64_t ticket)
{
	int32_t term;
	neap_ns when = queue_decide(q, all, cost, UINT64_MAX, &term);
	struct queue_person *p = queue_arrive(q, ticket, deadline);
	memcpy(p->cost, cost, sizeof p->cost);
	p->all = all;
	if (!is_head(q, p))
		return;
	int line = queue_line_of(p), limiter = queue_limiter_of(q, all, term);
	q->stands_at[line] = limiter;
	q->stands_by[line] = term;
	if (queue_first_at(q, limiter) == p)
		q->due[limiter] = when;
}

void queue_sleep(struct queue *q, neap_ns until, int64_t ticket)
{
	queue_arrive(q, ticket, until > 0 ? until : 0);
}

int queue_cancel(struct queue *q, int64_t ticket)
{
	struct queue_person *p = find(q, ticket);
	if (p && p->all < 0)
		end(q, p, NEAP_CANCELLED, -1);
	else if (p)
		queue_drop(q, p, NEAP_CANCELLED);
	return p != NULL;
}

int queue_ahead(struct queue *q, int all, const int64_t *cost)
{
	const struct neap_all *a = &q->world.all[all];
	struct queue_person me = {.all = all, .room = -1};
	int most = 0;
	memcpy(me.cost, cost, sizeof me.cost);
	for (int i = 0; i < a->count; i++) {
		int ahead = 0, limiter = queue_limiter_of(q, all, i);
		if (!queue_asked(a, cost, i))
			continue;
		for (struct queue_person *p = q->person; p < q->person + q->people; p++)
			ahead += p->all >= 0 &&
				 (q->stands_at[queue_line_of(p)] == limiter || queue_line_of(p) == queue_line_of(&me) ||
				  (p->ticket == q->urgent &&
				   queue_spared(q, limiter, queue_asked(a, cost, i), UINT64_MAX) > q->at));
		most = ahead > most ? ahead : most;
	}
	return most;
}

int queue_is_stuck(struct queue *q)
{
	for (struct queue_person *p = q->person; p < q->person + q->people; p++) {
		int32_t term;
		if (is_head(q, p) && queue_decide(q, p->all, p->cost, p->arrival, &term) <= q->at)
			return 1;
	}
	return 0;
}

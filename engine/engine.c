/* SPDX-License-Identifier: MIT */
/* engine.c - where limiters, lines and the wheel meet.
 *
 *      acquire ---> ask all terms ---> granted
 *                        | not yet: the term that says the latest instant binds
 *                        v
 *                   join the line; its head stands at the post of what binds;
 *                   the first at a post is armed on the wheel for that instant
 *                        |
 *      advance ---> its time came, or a give did ---> ask again, at that very instant
 *                        | yes: completion, next head      | no: stand where it binds now
 *
 * Time is never skipped. Whatever call comes in at 'now', everything due before happens first, in
 * order, each at its own instant: a head whose token came 80 us ago is charged 80 us ago, so the
 * one behind it loses nothing by a late loop, and several grants may fall due in one call.
 *
 * A post is dirty when its first line must be asked again: its instant came, a permit came back,
 * or the one before it left. Dirty posts are a list, not a recursion, and the list is empty
 * between calls. A line's record and a post for it are reserved when the line begins, so no
 * grant, move or cancel can fail.
 *
 * A ticket is generation << 24 | index. A waiter's record is its own from acquire to drain, so
 * there is always room for its completion.
 *
 * Invariants, between calls:
 *   every waiting ticket is in a line; every line's head stands at a post of one of its terms
 *   a timer is set to the lesser of its waiter's deadline and, for the first at a post, its due
 *   nothing due up to 'at' is left undone
 */
#include "change.h"
#include "line.h"
#include "wheel.h"

#include <assert.h>
#include <stdlib.h>

enum { FREE, WAITING, SLEEPING, ENDED };   /* ENDED + status once it has */

enum { INDEX_BITS = 24, GENERATIONS = 1 << 29 };

struct neap_engine {
	struct neap_lines lines;
	struct neap_wheel *wheel;
	neap_ns at;                 /* all that was due up to here has happened */
	uint64_t arrivals;
	uint32_t waiters_max;
	uint32_t untouched;         /* records from here on were never used */
	uint32_t free;              /* list, by next */
	uint32_t ended, ended_last; /* list, by next, in the order it happened */
	uint32_t dirty;             /* list of posts */
	struct neap_engine_stats stats;
};

static struct neap_waiter *waiter(struct neap_engine *e, uint32_t name)
{
	return neap_waiter_at(&e->lines, name);
}

/* ---- tickets ---- */

static int64_t ticket_of(struct neap_engine *e, uint32_t name)
{
	return (int64_t)waiter(e, name)->generation << INDEX_BITS | (name - 1);
}

static uint32_t enlist(struct neap_engine *e)
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
	w->arrival = ++e->arrivals;
	w->next = w->prev = w->line = 0;
	return name;
}

static void end(struct neap_engine *e, uint32_t name, int status, neap_ns at, int32_t bound)
{
	struct neap_waiter *w = waiter(e, name);
	neap_wheel_cancel(e->wheel, name - 1);
	w->state = (int16_t)(ENDED + status);
	w->bound = (int16_t)bound;
	w->deadline = at;
	w->next = 0;
	*(e->ended ? &waiter(e, e->ended_last)->next : &e->ended) = name;
	e->ended_last = name;
	e->stats.completed++;
	e->stats.granted += status == NEAP_GRANTED;
}

/* ---- posts ---- */

/* Set the timer to what this waiter is to be looked at for next. */
static void arm(struct neap_engine *e, uint32_t name)
{
	const struct neap_waiter *w = waiter(e, name);
	const struct neap_line *l = neap_line_at(&e->lines, w->line);
	const struct neap_post *p = neap_post_at(&e->lines, l->post);
	neap_ns due = w->deadline;
	if (l->head == name && p->first == w->line && p->due < due)
		due = p->due;
	if (due < neap_on_give)
		neap_wheel_set(e->wheel, name - 1, due);
	else
		neap_wheel_cancel(e->wheel, name - 1);
}

static void mark(struct neap_engine *e, uint32_t post)
{
	struct neap_post *p = neap_post_at(&e->lines, post);
	if (p->dirty)
		return;
	p->dirty = 1;
	p->next_dirty = e->dirty;
	e->dirty = post;
}

/* Let a line stand before the limiter of its 'term'. 1 when it is first there. */
static int stand(struct neap_engine *e, uint32_t line, int32_t term)
{
	const struct neap_all *all = neap_line_all(neap_line_at(&e->lines, line));
	const struct neap_limiter *limiter = all->terms[term].limiter;
	uint32_t post = neap_post_of(&e->lines, limiter);
	if (!post)
		post = neap_roster_add(&e->lines.post, limiter, 0);
	struct neap_post *p = neap_post_at(&e->lines, post);
	uint32_t was_first = p->first;
	neap_line_stand(&e->lines, line, post, term);
	if (p->first != line)
		return 0;
	p->due = neap_on_give;
	if (was_first)
		arm(e, neap_line_at(&e->lines, was_first)->head);   /* its deadline alone */
	return 1;
}

/* Take a waiter out of its line, and the line away when it was the last. */
static void leave(struct neap_engine *e, uint32_t name)
{
	uint32_t line = waiter(e, name)->line;
	neap_line_leave(&e->lines, name);
	e->stats.waiting--;
	if (neap_line_at(&e->lines, line)->count)
		return;
	neap_line_step_back(&e->lines, line);
	neap_roster_remove(&e->lines.line, line);
}

/* Behind 'next', who is asked now, stands one who is asked soon. In a long line his record and timer
 * lie anywhere, and take as long to come as all the rest of a grant: fetch them meanwhile. */
static void expect(struct neap_engine *e, uint32_t next)
{
	uint32_t behind = next ? waiter(e, next)->next : 0;
	if (!behind)
		return;
	__builtin_prefetch(waiter(e, behind), 1);
	__builtin_prefetch(&waiter(e, behind)->cost, 1);
	neap_wheel_expect(e->wheel, behind - 1);
}

/* Ask the first line of a post, and the next when it is gone, until one has to wait here. */
static void serve(struct neap_engine *e, uint32_t post, neap_ns at)
{
	for (;;) {
		struct neap_post *p = neap_post_at(&e->lines, post);
		if (!p->first) {
			neap_roster_remove(&e->lines.post, post);
			return;
		}
		uint32_t line = p->first;
		const struct neap_line *l = neap_line_at(&e->lines, line);
		const struct neap_all *all = neap_line_all(l);
		uint32_t name = l->head;
		const struct neap_waiter *w = waiter(e, name);
		int32_t term;
		neap_ns when = neap_lines_decide(&e->lines, all, w->cost, w->arrival, at, &term);
		if (when <= at)
			when = neap_all_claim(all, w->cost, at, &term);
		if (when <= at || when == neap_never) {
			expect(e, w->next);
			leave(e, name);
			end(e, name, when <= at ? NEAP_GRANTED : NEAP_NEVER, at, term);
		} else if (all->terms[term].limiter == p->key.of) {
			p->due = when;
			arm(e, name);
			return;
		} else {
			neap_line_step_back(&e->lines, line);
			int first = stand(e, line, term);
			arm(e, name);
			if (first)
				mark(e, neap_line_at(&e->lines, line)->post);
		}
	}
}

static void settle_down(struct neap_engine *e)
{
	while (e->dirty) {
		uint32_t post = e->dirty;
		struct neap_post *p = neap_post_at(&e->lines, post);
		e->dirty = p->next_dirty;
		p->dirty = 0;
		e->stats.wakeups++;
		serve(e, post, e->at);
	}
}

/* End one who waits otherwise than by a grant. */
static void drop(struct neap_engine *e, uint32_t name, int status)
{
	uint32_t line = waiter(e, name)->line;
	const struct neap_line *l = neap_line_at(&e->lines, line);
	uint32_t post = l->post;
	int32_t term = l->term;
	int was_asked = l->head == name && neap_post_at(&e->lines, post)->first == line;
	leave(e, name);
	end(e, name, status, e->at, status == NEAP_TIMEOUT ? term : -1);
	if (was_asked)
		mark(e, post);
	settle_down(e);
}

/* ---- time ---- */

static void came_due(struct neap_engine *e, uint32_t name)
{
	struct neap_waiter *w = waiter(e, name);
	if (w->state == SLEEPING) {
		e->stats.sleeping--;
		end(e, name, NEAP_WOKEN, e->at, -1);
		return;
	}
	const struct neap_line *l = neap_line_at(&e->lines, w->line);
	const struct neap_post *p = neap_post_at(&e->lines, l->post);
	if (l->head == name && p->first == w->line && p->due <= e->at) {
		mark(e, l->post);
		settle_down(e);
	}
	if (w->state == WAITING && w->deadline <= e->at)
		drop(e, name, NEAP_TIMEOUT);
}

/* Let all that is due by 'now' happen. Answers the engine's now. */
static neap_ns catch_up(struct neap_engine *e, neap_ns now)
{
	assert(now >= 0 && now < neap_horizon);
	neap_ns due;
	int64_t id;
	if (now < e->at)
		now = e->at;
	while (neap_wheel_count(e->wheel) && (id = neap_wheel_pop(e->wheel, now, &due)) >= 0) {
		if (due > e->at)
			e->at = due;
		came_due(e, (uint32_t)id + 1);
	}
	e->at = now;
	return now;
}

/* ---- the verbs ---- */

static uint32_t costs_in_use(const struct neap_request *r)
{
	uint32_t tag = 0;
	for (int i = 0; i < NEAP_COSTS; i++) {
		assert(r->cost[i] >= 0 && r->cost[i] <= INT64_C(1) << 59);
		tag |= (uint32_t)(r->cost[i] > 0) << i;
	}
	return tag;
}

/* The answer for a newcomer, with nothing taken. */
static void ask(struct neap_engine *e, const struct neap_request *r, struct neap_answer *a)
{
	assert(neap_all_check(r->all) == NEAP_OK);
	*a = (struct neap_answer){.status = NEAP_GRANTED};
	a->at = neap_lines_decide(&e->lines, r->all, r->cost, UINT64_MAX, e->at, &a->bound);
	if (a->at == neap_never) {
		a->status = NEAP_NEVER;
	} else if (a->at > e->at) {
		a->status = NEAP_REFUSED;
		a->at = neap_lines_predict(&e->lines, r, costs_in_use(r), e->at, &a->bound,
					   &a->ahead);
	}
}

void neap_engine_peek(struct neap_engine *e, const struct neap_request *r, neap_ns now,
		      struct neap_answer *a)
{
	catch_up(e, now);
	ask(e, r, a);
}

void neap_engine_try(struct neap_engine *e, const struct neap_request *r, neap_ns now,
		     struct neap_answer *a)
{
	catch_up(e, now);
	do
		ask(e, r, a);   /* again when another thread was faster */
	while (a->status == NEAP_GRANTED && neap_all_take(r->all, r->cost, e->at, NULL) > e->at);
}

/* A line of one, standing where it binds. */
static void begin(struct neap_engine *e, const struct neap_request *r, uint32_t name)
{
	int32_t term;
	neap_ns when = neap_lines_decide(&e->lines, r->all, r->cost, UINT64_MAX, e->at, &term);
	uint32_t line = neap_roster_add(&e->lines.line, r->all, costs_in_use(r));
	neap_line_join(&e->lines, line, name);
	if (stand(e, line, term))
		neap_post_at(&e->lines, neap_line_at(&e->lines, line)->post)->due = when;
}

int neap_engine_acquire(struct neap_engine *e, const struct neap_request *r, neap_ns now,
			struct neap_answer *a)
{
	neap_engine_try(e, r, now, a);
	if (a->status != NEAP_REFUSED)
		return NEAP_OK;
	if (r->deadline <= e->at || (a->at > r->deadline && a->at < neap_on_give)) {
		a->status = NEAP_TIMEOUT;
		return NEAP_OK;
	}
	uint32_t line = neap_roster_find(&e->lines.line, r->all, costs_in_use(r));
	if (!line && (neap_roster_reserve(&e->lines.line, e->lines.line.count + 1) ||
		      neap_roster_reserve(&e->lines.post, e->lines.line.count + 2)))
		return NEAP_ENOMEM;
	uint32_t name = enlist(e);
	if (!name) {
		a->status = NEAP_QUEUE_FULL;
		return NEAP_OK;
	}
	struct neap_waiter *w = waiter(e, name);
	for (uint32_t left = costs_in_use(r); left; left &= left - 1)
		w->cost[neap_next_cost(left)] = r->cost[neap_next_cost(left)];
	w->deadline = r->deadline;
	w->state = WAITING;
	e->stats.waiting++;
	if (line)
		neap_line_join(&e->lines, line, name);
	else
		begin(e, r, name);
	arm(e, name);
	a->status = NEAP_WAITING;
	a->ticket = ticket_of(e, name);
	return NEAP_OK;
}

int64_t neap_engine_sleep(struct neap_engine *e, neap_ns until, neap_ns now)
{
	catch_up(e, now);
	uint32_t name = enlist(e);
	if (!name)
		return 0;
	struct neap_waiter *w = waiter(e, name);
	w->deadline = until;
	w->state = SLEEPING;
	e->stats.sleeping++;
	neap_wheel_set(e->wheel, name - 1, until > 0 ? until : 0);
	return ticket_of(e, name);
}

int neap_engine_cancel(struct neap_engine *e, int64_t ticket, neap_ns now)
{
	catch_up(e, now);
	uint32_t name = ((uint32_t)ticket & ((1 << INDEX_BITS) - 1)) + 1;
	if (ticket <= 0 || name > e->untouched || ticket != ticket_of(e, name))
		return 0;
	switch (waiter(e, name)->state) {
	case WAITING:
		drop(e, name, NEAP_CANCELLED);
		return 1;
	case SLEEPING:
		e->stats.sleeping--;
		end(e, name, NEAP_CANCELLED, e->at, -1);
		return 1;
	}
	return 0;
}

static void ask_waiters(struct neap_engine *e, const struct neap_limiter *l)
{
	uint32_t post = neap_post_of(&e->lines, l);
	if (post)
		mark(e, post);
}

static void ask_all_waiters(struct neap_engine *e, const struct neap_all *all)
{
	for (int32_t i = 0; i < all->count; i++)
		ask_waiters(e, all->terms[i].limiter);
	settle_down(e);
}

void neap_engine_give(struct neap_engine *e, const struct neap_all *all, const int64_t *cost,
		      int outcome, neap_ns now)
{
	now = catch_up(e, now);
	neap_all_give(all, cost, outcome, now);
	ask_all_waiters(e, all);
}

void neap_engine_settle(struct neap_engine *e, const struct neap_all *all, const int64_t *cost,
			const int64_t *used, neap_ns at, neap_ns now)
{
	now = catch_up(e, now);
	neap_all_settle(all, cost, used, at, now);
	ask_all_waiters(e, all);
}

void neap_engine_touch(struct neap_engine *e, const struct neap_limiter *l, neap_ns now)
{
	catch_up(e, now);
	ask_waiters(e, l);
	settle_down(e);
}

int64_t neap_engine_advance(struct neap_engine *e, neap_ns now)
{
	catch_up(e, now);
	return e->stats.completed;
}

neap_ns neap_engine_next_due(struct neap_engine *e) { return neap_wheel_next(e->wheel); }

int64_t neap_engine_drain(struct neap_engine *e, struct neap_completion *out, int64_t max)
{
	int64_t n = 0;
	for (; n < max && e->ended; n++) {
		uint32_t name = e->ended;
		struct neap_waiter *w = waiter(e, name);
		out[n] = (struct neap_completion){ticket_of(e, name), w->deadline, w->state - ENDED,
						  w->bound};
		e->ended = w->next;
		w->state = FREE;
		w->next = e->free;
		e->free = name;
	}
	e->stats.completed -= n;
	return n;
}

/* ---- life and proof ---- */

struct neap_engine *neap_engine_open(uint32_t waiters_max, neap_ns now)
{
	assert(waiters_max >= 1 && waiters_max <= 1 << INDEX_BITS && now >= 0);
	struct neap_engine *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	neap_roster_init(&e->lines.line, sizeof(struct neap_line));
	neap_roster_init(&e->lines.post, sizeof(struct neap_post));
	e->lines.waiter = calloc(waiters_max, sizeof *e->lines.waiter);
	e->wheel = neap_wheel_open(waiters_max, now);
	e->at = now;
	e->waiters_max = waiters_max;
	if (!e->lines.waiter || !e->wheel) {
		neap_engine_close(e);
		return NULL;
	}
	return e;
}

void neap_engine_close(struct neap_engine *e)
{
	if (!e)
		return;
	neap_wheel_close(e->wheel);
	neap_roster_free(&e->lines.line);
	neap_roster_free(&e->lines.post);
	free(e->lines.waiter);
	free(e);
}

void neap_engine_stats(const struct neap_engine *e, struct neap_engine_stats *out)
{
	const struct neap_roster *line = &e->lines.line, *post = &e->lines.post;
	*out = e->stats;
	out->waiters_max = e->waiters_max;
	out->lines = line->count;
	out->bytes = neap_wheel_bytes(e->wheel) +
		     (int64_t)(sizeof *e + e->waiters_max * sizeof(struct neap_waiter) +
			       line->room * line->size + post->room * post->size +
			       (line->buckets + post->buckets) * sizeof(uint32_t));
}

int neap_engine_check(const struct neap_engine *e)
{
	int64_t waiting = 0, sleeping = 0, completed = 0;
	if (neap_wheel_check(e->wheel) || neap_lines_check(&e->lines) || e->dirty)
		return NEAP_ECORRUPT;
	for (uint32_t name = 1; name <= e->untouched; name++) {
		const struct neap_waiter *w = neap_waiter_at(&e->lines, name);
		const struct neap_line *l = neap_line_at(&e->lines, w->line);
		waiting += w->state == WAITING;
		sleeping += w->state == SLEEPING;
		completed += w->state > ENDED;
		if (w->state != WAITING)
			continue;
		if (!w->line || l->post == 0 || w->deadline < e->at)
			return NEAP_ECORRUPT;
		const struct neap_post *p = neap_post_at(&e->lines, l->post);
		if (l->head == name && p->first == w->line && p->due <= e->at)
			return NEAP_ECORRUPT;
	}
	int counted = waiting == e->stats.waiting && sleeping == e->stats.sleeping &&
		      completed == e->stats.completed;
	return counted ? NEAP_OK : NEAP_ECORRUPT;
}

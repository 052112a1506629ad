/* SPDX-License-Identifier: MIT */
/* line.c - who waits, in which order.
 *
 * Two things are called a queue elsewhere, and are different here:
 *
 *   A line  is first come, first served: all who ask the same limits for the same kinds of cost,
 *           and the same keys of those that are keyed.
 *           Whoever stands behind somebody in it would get no answer that his elder would not.
 *           Or it is a queue (queue.c): then its waiters ask what they like, and the queue says
 *           whose turn it is. Its head changes when somebody comes, too.
 *   A post  is a place before one limiter, and one of its keys. Of each line only the head stands
 *           at a post, the one of the limiter that holds it up. Heads of several lines that share
 *           a limiter meet there, and the one who arrived first is asked first.
 *
 *      line A   a7 a5 a2 --.          post of "500/min"
 *                           >-- a2, b3 (a2 is asked, and armed on the wheel; b3 is not)
 *      line B   b6 b4 b3 --'
 *      line C   c9 c8 ------- c8      post of "64 in flight"
 *
 * So a thousand waiters on one throttle are one line, one post and one timer; joining, leaving
 * from anywhere and being served are O(1), and moving a head to another post, with its arrival
 * and so its rank, is O(log lines) amortised: posts keep their lines in a heap (heap.c).
 *
 * Invariants:
 *   waiters of a line are in order of arrival; its arrival is its head's
 *   a line with waiters stands at one post, except inside one call of the engine
 *   queued and waiting are the sums over the waiters they speak of
 */
#include "line.h"
#include "change.h"
#include "queue.h"

#include <assert.h>
#include <string.h>

static struct neap_nodes nodes(const struct neap_lines *s)
{
	return (struct neap_nodes){s->line.record + offsetof(struct neap_line, node), s->line.size};
}

/* ---- standing ---- */

uint64_t neap_line_tag(const struct neap_all *all, uint32_t costs, const uint64_t *key)
{
	uint64_t tag = costs;
	if (!neap_asked_is_keyed(all))
		return tag;
	for (int32_t i = 0; i < all->count; i++)
		if (all->terms[i].limiter->kind == NEAP_KEYED) {
			tag = (tag ^ key[all->terms[i].key]) * UINT64_C(0x9E3779B97F4A7C15);
			tag ^= tag >> 32;   /* an odd factor: nothing is lost on the way */
		}
	return tag;
}

neap_sum neap_line_queued(const struct neap_line *line, int32_t term)
{
	const struct neap_all *all = line->all;
	const struct neap_limiter *l = all->terms[term].limiter;
	neap_sum sum = 0;
	for (int32_t i = term; i < all->count && all->terms[i].limiter == l; i++)
		sum += line->queued[all->terms[i].cost] * all->terms[i].multiplier;
	return sum;
}

/* What one waiter asks of the limiter before which its line stands. */
static neap_sum asks(const struct neap_line *line, const struct neap_waiter *w)
{
	const struct neap_all *all = line->all;
	const struct neap_limiter *l = all->terms[line->term].limiter;
	neap_sum sum = 0;
	for (int32_t i = line->term; i < all->count && all->terms[i].limiter == l; i++)
		sum += (neap_sum)w->cost[all->terms[i].cost] * all->terms[i].multiplier;
	return sum;
}

/* Do the costs in use ask the limiter of 'term' alone? */
static int32_t asks_alone(const struct neap_line *line, int32_t term)
{
	const struct neap_all *all = line->all;
	for (int32_t i = 0; i < all->count; i++)
		if (all->terms[i].limiter != all->terms[term].limiter &&
		    line->costs >> all->terms[i].cost & 1)
			return 0;
	if (all->terms[term].limiter->kind == NEAP_CONDITIONAL)
		return 0;   /* how much, nobody knows before it is asked */
	return !line->queue;   /* who knows what its next head asks */
}

void neap_line_stand(struct neap_lines *s, uint32_t line, uint32_t post, int32_t term)
{
	struct neap_line *l = neap_line_at(s, line);
	struct neap_post *p = neap_post_at(s, post);
	assert(l->count && !l->post);
	l->post = post;
	l->term = term;
	l->alone = asks_alone(l, term);
	neap_heap_add(nodes(s), &p->first, line);
	p->queued += l->alone ? neap_line_queued(l, term) : 0;
	p->waiting += l->count;
}

void neap_line_step_back(struct neap_lines *s, uint32_t line)
{
	struct neap_line *l = neap_line_at(s, line);
	struct neap_post *p = neap_post_at(s, l->post);
	neap_heap_remove(nodes(s), &p->first, line);
	p->queued -= l->alone ? neap_line_queued(l, l->term) : 0;
	p->waiting -= l->count;
	l->post = 0;
}

/* ---- the line itself ---- */

void neap_line_join(struct neap_lines *s, uint32_t line, uint32_t waiter)
{
	struct neap_line *l = neap_line_at(s, line);
	struct neap_waiter *w = neap_waiter_at(s, waiter);
	w->line = line;
	w->next = 0;
	w->prev = l->tail;
	if (l->tail) {
		neap_waiter_at(s, l->tail)->next = waiter;
	} else {
		l->head = waiter;
		l->node.arrival = w->arrival;
	}
	l->tail = waiter;
	l->count++;
	for (uint32_t left = l->costs; left; left &= left - 1)
		l->queued[neap_next_cost(left)] += w->cost[neap_next_cost(left)];
	if (l->post) {
		struct neap_post *p = neap_post_at(s, l->post);
		p->queued += l->alone ? asks(l, w) : 0;
		p->waiting++;
	}
}

static void leave_queue(struct neap_lines *s, struct neap_waiter *w, int status)
{
	struct neap_line *l = neap_line_at(s, w->line);
	if (status == NEAP_GRANTED)
		neap_queue_serve(l->queue, w->prev);
	else
		neap_queue_leave(l->queue, w->prev);
	if (l->post)
		neap_post_at(s, l->post)->waiting--;
	l->count--;
	w->line = w->prev = 0;
	memset(w->cost, 0, sizeof w->cost);
}

void neap_line_leave(struct neap_lines *s, uint32_t waiter, int status)
{
	struct neap_waiter *w = neap_waiter_at(s, waiter);
	struct neap_line *l = neap_line_at(s, w->line);
	struct neap_post *p = l->post ? neap_post_at(s, l->post) : NULL;
	int was_head = l->head == waiter;
	assert(!l->queue || !was_head || !p);
	if (l->queue) {
		leave_queue(s, w, status);
		return;
	}
	if (p) {
		p->queued -= l->alone ? asks(l, w) : 0;
		p->waiting--;
	}
	for (uint32_t left = l->costs; left; left &= left - 1) {
		int i = neap_next_cost(left);
		l->queued[i] -= w->cost[i];
		w->cost[i] = 0;
	}
	*(w->prev ? &neap_waiter_at(s, w->prev)->next : &l->head) = w->next;
	*(w->next ? &neap_waiter_at(s, w->next)->prev : &l->tail) = w->prev;
	l->count--;
	/* a younger head ranks lower; with nobody else at the post there is nothing to reorder */
	if (was_head && l->head) {
		l->moves = 0;
		int moves = p && !(p->first == w->line && !l->node.child);
		if (moves)
			neap_heap_remove(nodes(s), &p->first, w->line);
		l->node.arrival = neap_waiter_at(s, l->head)->arrival;
		if (moves)
			neap_heap_add(nodes(s), &p->first, w->line);
	}
	w->line = 0;
}

/* ---- the line of a queue ---- */

void neap_line_enter(struct neap_lines *s, uint32_t line, uint32_t waiter, uint32_t place)
{
	struct neap_line *l = neap_line_at(s, line);
	struct neap_waiter *w = neap_waiter_at(s, waiter);
	l->queue->place[place].entry.waiter = waiter;
	w->line = line;
	w->prev = place;
	l->count++;
	if (l->post)
		neap_post_at(s, l->post)->waiting++;
}

const struct neap_all *neap_line_asks(const struct neap_lines *s, uint32_t waiter)
{
	const struct neap_line *l = neap_line_of(s, waiter);
	return l->queue ? l->queue->place[neap_waiter_at(s, waiter)->prev].entry.request.all : l->all;
}

uint32_t neap_line_next(const struct neap_line *line)
{
	return line->queue->place[neap_queue_first(line->queue)].entry.waiter;
}

void neap_line_turn(struct neap_lines *s, uint32_t line)
{
	struct neap_line *l = neap_line_at(s, line);
	const struct neap_entry *e = &l->queue->place[neap_queue_first(l->queue)].entry;
	assert(!l->post);
	if (l->head != e->waiter)
		l->moves = 0;
	l->head = e->waiter;
	l->all = e->request.all;
	memcpy(l->keys, e->request.key, sizeof l->keys);
	l->node.arrival = e->arrival;
}

/* ---- proof ---- */

static int check_queue_line(const struct neap_lines *s, const struct neap_line *l)
{
	const struct neap_queue *q = l->queue;
	const struct neap_entry *head = &q->place[neap_queue_first(q)].entry;
	if (neap_queue_check(q) || l->key.of != q || l->key.tag || l->costs || !l->post ||
	    l->count != q->count || l->count > q->capacity || l->head != head->waiter ||
	    l->all != head->request.all || l->node.arrival != head->arrival ||
	    memcmp(l->keys, head->request.key, sizeof l->keys) != 0)
		return NEAP_ECORRUPT;
	for (uint32_t n = 1; n <= q->untouched; n++) {
		const struct neap_place *p = &q->place[n];
		const struct neap_waiter *w = p->flow ? neap_waiter_at(s, p->entry.waiter) : NULL;
		if (w && (w->prev != n || neap_line_at(s, w->line) != l || w->next ||
			  w->arrival != p->entry.arrival ||
			  memcmp(w->cost, p->entry.request.cost, sizeof w->cost) != 0))
			return NEAP_ECORRUPT;
	}
	return NEAP_OK;
}

static int check_line(const struct neap_lines *s, const struct neap_line *l)
{
	neap_sum queued[NEAP_COSTS] = {0};
	uint64_t arrival = 0;
	uint32_t count = 0, prev = 0;
	if (l->queue)
		return check_queue_line(s, l);
	for (uint32_t n = l->head; n; prev = n, n = neap_waiter_at(s, n)->next) {
		const struct neap_waiter *w = neap_waiter_at(s, n);
		for (int i = 0; i < NEAP_COSTS; i++)
			if ((w->cost[i] > 0) != (l->costs >> i & 1))
				return NEAP_ECORRUPT;
		if (w->prev != prev || neap_line_at(s, w->line) != l || count++ >= l->count ||
		    w->arrival <= arrival)
			return NEAP_ECORRUPT;
		arrival = w->arrival;
		for (int i = 0; i < NEAP_COSTS; i++)
			queued[i] += w->cost[i];
	}
	for (int i = 0; i < NEAP_COSTS; i++)
		if (queued[i] != l->queued[i])
			return NEAP_ECORRUPT;
	int sound = l->all == l->key.of && l->count && count == l->count && l->tail == prev && l->post &&
		    l->node.arrival == neap_waiter_at(s, l->head)->arrival;
	return sound ? NEAP_OK : NEAP_ECORRUPT;
}

int neap_lines_check(const struct neap_lines *s)
{
	if (neap_roster_check(&s->line) || neap_roster_check(&s->post))
		return NEAP_ECORRUPT;
	for (uint32_t n = 1; n <= s->line.used; n++) {
		const struct neap_line *l = neap_line_at(s, n);
		if (l->key.of && check_line(s, l))
			return NEAP_ECORRUPT;
	}
	for (uint32_t n = 1; n <= s->post.used; n++) {
		const struct neap_post *p = neap_post_at(s, n);
		if (!p->key.of)
			continue;
		neap_sum queued = 0;
		int64_t waiting = 0;
		uint64_t eldest = UINT64_MAX;
		for (uint32_t i = 1; i <= s->line.used; i++) {
			const struct neap_line *l = neap_line_at(s, i);
			if (!l->key.of || l->post != n)
				continue;
			queued += l->alone ? neap_line_queued(l, l->term) : 0;
			if (l->alone != asks_alone(l, l->term) ||
			    neap_node_check(nodes(s), p->first, i))
				return NEAP_ECORRUPT;
			waiting += l->count;
			eldest = l->node.arrival < eldest ? l->node.arrival : eldest;
		}
		if (!p->first || queued != p->queued || waiting != p->waiting || p->dirty ||
		    neap_line_at(s, p->first)->node.arrival != eldest)
			return NEAP_ECORRUPT;
	}
	return NEAP_OK;
}

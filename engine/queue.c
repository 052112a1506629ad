/* SPDX-License-Identifier: MIT */
/* queue.c - a bounded waiting room with priorities.
 *
 * Who is next? Of the classes, one for each priority, the best; in it, of the flows, one for each
 * key, the one that has had least (flow.c); in that, who came first:
 *
 *      class 9    flow a  [a3 a2 a1] --.
 *                                       >-- b1 --.
 *                 flow b  [b1] --------'          \
 *                                                  >-- b1
 *      class 0    flow a  [a4] --------.          /
 *                                       >-- a4 --'
 *                 flow c  [c2 c1] -----'
 *
 * and the same the other way round for who has to go when a newcomer finds no place: of the
 * classes the one in which is the oldest of all, or the lowest. Both are heaps, so everything here
 * is O(log n) at most, and the length of the queue does not matter to a grant.
 *
 * With ageing everybody rises by one priority per ageing_ns of waiting. All rise alike, so who is
 * ahead never changes by time alone: it is an instant that stands still, and orders them,
 *
 *      since - priority * ageing_ns      smaller is first
 *
 * and a class ranks by that of the one who has waited longest in it, whoever's turn it is there. So
 * a class that is passed over rises until it is the best, and no newcomer can hold it back.
 *
 * Invariants:
 *   a class with waiters is in both heaps of classes, by its oldest, and by who would have to go
 *   waiters of a class are in order of arrival, too
 *   one more than the capacity is there only between a newcomer's join and its fate
 */
#include "queue.h"

#include <assert.h>
#include <stdlib.h>

enum { CAPACITY_MOST = 1 << 24 };

static struct neap_nodes turns(const struct neap_queue *q)
{
	return (struct neap_nodes){q->class.record + offsetof(struct neap_class, turn),
				   q->class.size};
}

static struct neap_nodes fates(const struct neap_queue *q)
{
	return (struct neap_nodes){q->class.record + offsetof(struct neap_class, fate),
				   q->class.size};
}

/* ---- ranks ---- */

/* Less is more urgent. */
static neap_sum urgency(const struct neap_queue *q, const struct neap_entry *e)
{
	neap_sum priority = e->request.priority;
	return q->ageing_ns ? e->since - priority * q->ageing_ns : -priority;
}

/* Without ageing it matters to no other class who is the oldest, or the newest. */
static struct neap_node rank_by_turn(const struct neap_queue *q, const struct neap_class *c)
{
	const struct neap_entry *oldest = &q->place[c->oldest].entry;
	return (struct neap_node){.rank = urgency(q, oldest),
				  .arrival = q->ageing_ns ? oldest->arrival : 0};
}

static struct neap_node rank_by_fate(const struct neap_queue *q, const struct neap_class *c)
{
	const struct neap_entry *newest = &q->place[c->newest].entry;
	switch (q->overflow) {
	case NEAP_DROP_OLDEST:
		return (struct neap_node){.arrival = q->place[c->oldest].entry.arrival};
	case NEAP_DROP_LOWEST:
		return (struct neap_node){.rank = -urgency(q, newest),
					  .arrival = q->ageing_ns ? ~newest->arrival : 0};
	}
	return (struct neap_node){0};
}

static int same(const struct neap_node *a, const struct neap_node *b)
{
	return a->rank == b->rank && a->arrival == b->arrival;
}

/* Into a heap of classes, or to where it belongs there now. */
static void move(struct neap_nodes in, uint32_t *first, uint32_t name, int was_in,
		 const struct neap_node *rank)
{
	struct neap_node *n = neap_node_at(in, name);
	if (was_in && same(n, rank))
		return;
	if (was_in)
		neap_heap_remove(in, first, name);
	*n = *rank;
	neap_heap_add(in, first, name);
}

/* After somebody came or went. */
static void rank_class(struct neap_queue *q, uint32_t name, int had_waiters)
{
	const struct neap_class *c = neap_class_at(q, name);
	if (c->waiting) {
		struct neap_node turn = rank_by_turn(q, c), fate = rank_by_fate(q, c);
		move(turns(q), &q->best, name, had_waiters, &turn);
		move(fates(q), &q->fated, name, had_waiters, &fate);
	} else {
		neap_heap_remove(turns(q), &q->best, name);
		neap_heap_remove(fates(q), &q->fated, name);
	}
}

/* ---- coming and going ---- */

uint32_t neap_queue_join(struct neap_queue *q, const struct neap_entry *e)
{
	assert(q->count <= q->capacity);
	uint32_t name = q->free, flow = neap_flow_for(q, e), class = neap_flow_at(q, flow)->class;
	if (name)
		q->free = q->place[name].next;
	else
		name = ++q->untouched;
	struct neap_class *c = neap_class_at(q, class);
	int had_waiters = c->waiting != 0;
	q->place[name] = (struct neap_place){.entry = *e, .elder = c->newest};
	*(c->newest ? &q->place[c->newest].younger : &c->oldest) = name;
	c->newest = name;
	q->count++;
	neap_flow_join(q, flow, name);
	rank_class(q, class, had_waiters);
	return name;
}

static void go(struct neap_queue *q, uint32_t name, int64_t cost)
{
	struct neap_place *p = &q->place[name];
	uint32_t class = neap_flow_at(q, p->flow)->class;
	struct neap_class *c = neap_class_at(q, class);
	*(p->elder ? &q->place[p->elder].younger : &c->oldest) = p->younger;
	*(p->younger ? &q->place[p->younger].elder : &c->newest) = p->elder;
	q->count--;
	c->flows++;   /* it is not forgotten before it is ranked */
	neap_flow_leave(q, name, cost);
	rank_class(q, class, 1);
	if (--c->flows == 0)
		neap_roster_remove(&q->class, class);
	p->next = q->free;
	q->free = name;
}

void neap_queue_leave(struct neap_queue *q, uint32_t place) { go(q, place, 0); }

void neap_queue_serve(struct neap_queue *q, uint32_t place)
{
	int64_t cost = 0;
	for (int i = 0; i < NEAP_COSTS; i++)
		cost += q->place[place].entry.request.cost[i];
	go(q, place, cost);
	q->stats.served++;
}

/* ---- questions ---- */

uint32_t neap_queue_first(const struct neap_queue *q)
{
	return q->best ? neap_flow_at(q, neap_class_at(q, q->best)->first)->head : 0;
}

uint32_t neap_queue_victim(const struct neap_queue *q, uint32_t newcomer)
{
	if (q->count <= q->capacity)
		return 0;
	switch (q->overflow) {
	case NEAP_DROP_OLDEST: return neap_class_at(q, q->fated)->oldest;
	case NEAP_DROP_LOWEST: return neap_class_at(q, q->fated)->newest;
	}
	return newcomer;
}

uint32_t neap_queue_before(const struct neap_queue *q, uint32_t newcomer, uint32_t victim)
{
	uint32_t first = neap_queue_first(q), own = q->place[newcomer].flow;
	if (first == newcomer || first == victim)
		return 0;
	/* without its oldest, a class may be the best no more */
	if (q->ageing_ns && q->place[first].flow != own && victim &&
	    neap_flow_at(q, q->place[victim].flow)->class == q->best)
		return 0;
	return first;
}

int64_t neap_queue_ahead(const struct neap_queue *q, uint32_t newcomer, uint32_t victim,
			 neap_sum *queued)
{
	const struct neap_place *p = &q->place[newcomer], *gone = &q->place[victim];
	const struct neap_place *head = &q->place[neap_queue_before(q, newcomer, victim)];
	const struct neap_flow *f = neap_flow_at(q, p->flow);
	int one_less = victim != newcomer && gone->flow == p->flow;
	int one_more = head->flow && head->flow != p->flow;
	int same = neap_entry_asks_the_same(&head->entry, &p->entry);
	for (int i = 0; i < NEAP_COSTS; i++) {
		queued[i] = 0;
		if (!f->mixed)
			queued[i] += f->queued[i] - p->entry.request.cost[i] -
				     (one_less ? gone->entry.request.cost[i] : 0);
		if (one_more && same)
			queued[i] += head->entry.request.cost[i];
	}
	return (int64_t)f->count - 1 - one_less + one_more;
}

/* ---- life ---- */

struct neap_queue *neap_queue_open(uint32_t capacity, int overflow, neap_ns ageing_ns)
{
	if (capacity < 1 || capacity > CAPACITY_MOST || overflow < NEAP_REJECT ||
	    overflow > NEAP_DROP_LOWEST || ageing_ns < 0 || ageing_ns > neap_horizon)
		return NULL;
	struct neap_queue *q = calloc(1, sizeof *q);
	if (!q)
		return NULL;
	neap_roster_init(&q->flow, sizeof(struct neap_flow));
	neap_roster_init(&q->class, sizeof(struct neap_class));
	q->capacity = capacity;
	q->overflow = overflow;
	q->ageing_ns = ageing_ns;
	q->place = calloc((size_t)capacity + 2, sizeof *q->place);
	if (!q->place || neap_roster_reserve(&q->flow, capacity + 1) ||
	    neap_roster_reserve(&q->class, capacity + 1)) {
		neap_queue_close(q);
		return NULL;
	}
	return q;
}

void neap_queue_close(struct neap_queue *q)
{
	if (!q)
		return;
	neap_roster_free(&q->flow);
	neap_roster_free(&q->class);
	free(q->place);
	free(q);
}

void neap_queue_stats(const struct neap_queue *q, struct neap_queue_stats *out)
{
	*out = q->stats;
	out->waiting = q->count;
	out->capacity = q->capacity;
	out->flows = q->flow.count;
	out->classes = q->class.count;
	out->bytes = (int64_t)(sizeof *q + (q->capacity + (size_t)2) * sizeof *q->place) +
		     neap_roster_bytes(&q->flow) + neap_roster_bytes(&q->class);
}

/* ---- proof ---- */

/* A class's flows, and its waiters by arrival, are as many as it says. */
static int check_members(const struct neap_queue *q, uint32_t name)
{
	const struct neap_class *c = neap_class_at(q, name);
	uint32_t flows = 0, waiting = 0, in_flows = 0, listed = 0, elder = 0;
	for (uint32_t n = 1; n <= q->flow.used; n++) {
		const struct neap_flow *f = neap_flow_at(q, n);
		if (!f->key.of || f->class != name)
			continue;
		flows++;
		waiting += f->count > 0;
		in_flows += f->count;
	}
	for (uint32_t n = c->oldest; n; elder = n, n = q->place[n].younger) {
		const struct neap_place *p = &q->place[n];
		if (p->elder != elder || neap_flow_at(q, p->flow)->class != name ||
		    listed++ > q->count || (uint32_t)p->entry.request.priority != c->key.tag ||
		    (elder && q->place[elder].entry.arrival >= p->entry.arrival))
			return NEAP_ECORRUPT;
	}
	int sound = flows && flows == c->flows && waiting == c->waiting && !waiting == !c->first &&
		    listed == in_flows && c->newest == elder;
	return sound ? NEAP_OK : NEAP_ECORRUPT;
}

static int check_class(const struct neap_queue *q, uint32_t name)
{
	const struct neap_class *c = neap_class_at(q, name);
	if (check_members(q, name))
		return NEAP_ECORRUPT;
	if (!c->waiting)
		return NEAP_OK;
	struct neap_node turn = rank_by_turn(q, c), fate = rank_by_fate(q, c);
	if (!same(&c->turn, &turn) || neap_node_check(turns(q), q->best, name) ||
	    neap_node_before(&c->turn, &neap_class_at(q, q->best)->turn))
		return NEAP_ECORRUPT;
	if (!same(&c->fate, &fate) || neap_node_check(fates(q), q->fated, name) ||
	    neap_node_before(&c->fate, &neap_class_at(q, q->fated)->fate))
		return NEAP_ECORRUPT;
	return NEAP_OK;
}

int neap_queue_check(const struct neap_queue *q)
{
	uint32_t taken = 0, free = 0, waiting = 0;
	if (neap_flows_check(q) || neap_roster_check(&q->class) || q->count > q->capacity + 1)
		return NEAP_ECORRUPT;
	for (uint32_t n = 1; n <= q->class.used; n++) {
		const struct neap_class *c = neap_class_at(q, n);
		if (c->key.of && check_class(q, n))
			return NEAP_ECORRUPT;
		waiting += c->key.of && c->waiting;
	}
	for (uint32_t n = 1; n <= q->untouched; n++)
		taken += q->place[n].flow != 0;
	for (uint32_t n = q->free; n; n = q->place[n].next)
		if (q->place[n].flow || free++ > q->untouched)
			return NEAP_ECORRUPT;
	int sound = taken == q->count && taken + free == q->untouched &&
		    q->untouched <= q->capacity + 1 && !waiting == !q->best &&
		    !q->best == !q->fated;
	return sound ? NEAP_OK : NEAP_ECORRUPT;
}

/* SPDX-License-Identifier: MIT */
/* flow.c - fair between keys: the flows of one class of a queue.
 *
 * Fair is by cost, not by number. Each flow has a start tag, the service it has had, and the least
 * goes first (start-time fair queueing; Goyal, Vin, Cheng 1996). A grant moves the tag of its flow
 * on by what it cost. A flow that comes newly, or again, starts no earlier than virtual time: where
 * a flow would be that had waited all along. So a grant moves virtual time on, too, by its cost
 * over the flows that wait:
 *
 *      tags      a |=====|=====|             a was granted twice, b once; c comes now
 *                b |=====|
 *                c        . . . |            virtual time, and so where c starts:
 *      virtual     |--------->               b goes, then c, then a
 *
 * That is what keeps a stream of new keys from passing an old one for ever: each starts later than
 * the one before. Textbooks take the tag in service for virtual time, and it stands while new keys
 * come. Here virtual time is never before that tag, and never after what comes of it. While only
 * one flow waits nobody waits because of it, and virtual time does stand: whoever comes next is
 * owed a turn.
 *
 * A flow that has nobody left is remembered with its tag, or it would come back as new after every
 * call; once virtual time has reached the tag there is nothing to remember. The bound is the
 * queue's: of more flows than there are places, those idle longest are forgotten. So memory knows
 * nothing of keys ever served.
 *
 * Tags are tokens with 32 bits of fraction, in 128 bits: 2^62 tokens a grant and 2^33 grants a
 * second are below 2^127 for 36 years. Divisions round up: late rather than early, for a newcomer.
 *
 * Invariants:
 *   a flow with waiters is in its class's heap by its tag, and by its head's arrival among equals;
 *   one without is in the list of those that are idle
 *   virtual time and tags never step back
 *   a class is there as long as a flow of it is
 */
#include "queue.h"

enum { FRACTION = 32 };

static neap_sum later(neap_sum a, neap_sum b) { return a > b ? a : b; }
static neap_sum earlier(neap_sum a, neap_sum b) { return a < b ? a : b; }

static struct neap_nodes nodes(const struct neap_queue *q)
{
	return (struct neap_nodes){q->flow.record + offsetof(struct neap_flow, node), q->flow.size};
}

int neap_entry_asks_the_same(const struct neap_entry *a, const struct neap_entry *b)
{
	int same = a->request.all == b->request.all;
	for (int i = 0; i < NEAP_KEYS; i++)
		same &= a->request.key[i] == b->request.key[i];
	return same;
}

/* ---- idle flows ---- */

static void forget(struct neap_queue *q, uint32_t name)
{
	uint32_t class = neap_flow_at(q, name)->class;
	neap_roster_remove(&q->flow, name);
	if (--neap_class_at(q, class)->flows == 0)
		neap_roster_remove(&q->class, class);
}

static void stop_idling(struct neap_queue *q, uint32_t name)
{
	struct neap_flow *f = neap_flow_at(q, name);
	*(f->older ? &neap_flow_at(q, f->older)->newer : &q->idle) = f->newer;
	*(f->newer ? &neap_flow_at(q, f->newer)->older : &q->idle_last) = f->older;
	f->newer = f->older = 0;
}

static void forget_the_one_idle_longest(struct neap_queue *q)
{
	uint32_t name = q->idle;
	stop_idling(q, name);
	forget(q, name);
}

static int is_as_new(const struct neap_queue *q, uint32_t name)
{
	const struct neap_flow *f = neap_flow_at(q, name);
	return f->node.rank <= neap_class_at(q, f->class)->virtual;
}

static void begin_idling(struct neap_queue *q, uint32_t name)
{
	struct neap_flow *f = neap_flow_at(q, name);
	f->mixed = 0;
	f->older = q->idle_last;
	*(q->idle_last ? &neap_flow_at(q, q->idle_last)->newer : &q->idle) = name;
	q->idle_last = name;
	/* two for each that comes, so there are never many that could be forgotten and are not */
	for (int i = 0; i < 2 && q->idle && is_as_new(q, q->idle); i++)
		forget_the_one_idle_longest(q);
}

/* ---- coming and going ---- */

uint32_t neap_flow_for(struct neap_queue *q, const struct neap_entry *e)
{
	uint32_t tag = (uint32_t)e->request.priority, class = neap_roster_find(&q->class, q, tag), name = 0;
	if (class)
		name = neap_roster_find(&q->flow, neap_class_at(q, class), e->request.flow);
	if (name && !neap_flow_at(q, name)->count)
		stop_idling(q, name);
	if (name)
		return name;
	if (q->flow.count > q->capacity) {
		forget_the_one_idle_longest(q);   /* more flows than waiters: there is one */
		class = neap_roster_find(&q->class, q, tag);
	}
	if (!class)
		class = neap_roster_add(&q->class, q, tag);
	name = neap_roster_add(&q->flow, neap_class_at(q, class), e->request.flow);
	neap_flow_at(q, name)->class = class;
	neap_class_at(q, class)->flows++;
	return name;
}

void neap_flow_join(struct neap_queue *q, uint32_t flow, uint32_t place)
{
	struct neap_place *p = &q->place[place];
	struct neap_flow *f = neap_flow_at(q, flow);
	struct neap_class *c = neap_class_at(q, f->class);
	p->flow = flow;
	p->prev = f->tail;
	if (f->tail) {
		f->mixed |= !neap_entry_asks_the_same(&q->place[f->tail].entry, &p->entry);
		q->place[f->tail].next = place;
	} else {
		f->head = place;
		f->node.rank = later(f->node.rank, c->virtual);
		f->node.arrival = p->entry.arrival;
		neap_heap_add(nodes(q), &c->first, flow);
		c->waiting++;
	}
	f->tail = place;
	f->count++;
	for (int i = 0; i < NEAP_COSTS; i++)
		if (p->entry.request.cost[i])   /* most are 0, and lines of memory of their own */
			f->queued[i] += p->entry.request.cost[i];
}

/* What a grant moves virtual time by, when so many flows wait. */
static neap_sum share(int64_t cost, uint32_t waiting)
{
	int64_t whole = cost / waiting, rest = cost % waiting;
	return ((neap_sum)whole << FRACTION) + ((rest << FRACTION) + waiting - 1) / waiting;
}

static void charge(struct neap_class *c, struct neap_flow *f, int64_t cost)
{
	neap_sum start = f->node.rank, finish = start + ((neap_sum)cost << FRACTION);
	int others = c->waiting > (f->count > 0);
	c->virtual = later(c->virtual, start);
	if (others)
		c->virtual = later(c->virtual,
				   earlier(finish, c->virtual + share(cost, c->waiting)));
	f->node.rank = finish;
}

void neap_flow_leave(struct neap_queue *q, uint32_t place, int64_t cost)
{
	struct neap_place *p = &q->place[place];
	uint32_t flow = p->flow;
	struct neap_flow *f = neap_flow_at(q, flow);
	struct neap_class *c = neap_class_at(q, f->class);
	int moves = !p->prev || cost;
	if (moves)
		neap_heap_remove(nodes(q), &c->first, flow);
	*(p->prev ? &q->place[p->prev].next : &f->head) = p->next;
	*(p->next ? &q->place[p->next].prev : &f->tail) = p->prev;
	p->flow = 0;
	for (int i = 0; i < NEAP_COSTS; i++)
		if (p->entry.request.cost[i])
			f->queued[i] -= p->entry.request.cost[i];
	if (--f->count == 0)
		c->waiting--;
	if (cost)
		charge(c, f, cost);
	if (!f->count) {
		begin_idling(q, flow);
	} else if (moves) {
		f->node.arrival = q->place[f->head].entry.arrival;
		neap_heap_add(nodes(q), &c->first, flow);
	}
}

/* ---- proof ---- */

static int check_waiters(const struct neap_queue *q, uint32_t name)
{
	const struct neap_flow *f = neap_flow_at(q, name);
	neap_sum queued[NEAP_COSTS] = {0};
	uint32_t count = 0, prev = 0;
	for (uint32_t n = f->head; n; prev = n, n = q->place[n].next) {
		const struct neap_place *p = &q->place[n], *before = &q->place[prev];
		if (p->prev != prev || p->flow != name || count++ > q->count ||
		    p->entry.request.flow != f->key.tag)
			return NEAP_ECORRUPT;
		int same = neap_entry_asks_the_same(&before->entry, &p->entry);
		if (prev && (before->entry.arrival >= p->entry.arrival || (!f->mixed && !same)))
			return NEAP_ECORRUPT;
		for (int i = 0; i < NEAP_COSTS; i++)
			queued[i] += p->entry.request.cost[i];
	}
	for (int i = 0; i < NEAP_COSTS; i++)
		if (queued[i] != f->queued[i])
			return NEAP_ECORRUPT;
	return count == f->count && f->tail == prev ? NEAP_OK : NEAP_ECORRUPT;
}

static int check_flow(const struct neap_queue *q, uint32_t name)
{
	const struct neap_flow *f = neap_flow_at(q, name);
	const struct neap_class *c = neap_class_at(q, f->class);
	if (check_waiters(q, name) || c->key.of != q || f->key.of != c)
		return NEAP_ECORRUPT;
	if (!f->count)
		return NEAP_OK;
	if (f->node.arrival != q->place[f->head].entry.arrival || f->newer || f->older ||
	    neap_node_check(nodes(q), c->first, name) ||
	    neap_node_before(&f->node, &neap_flow_at(q, c->first)->node))
		return NEAP_ECORRUPT;
	return NEAP_OK;
}

int neap_flows_check(const struct neap_queue *q)
{
	uint32_t idle = 0, listed = 0, older = 0;
	if (neap_roster_check(&q->flow) || q->flow.count > q->capacity + 1)
		return NEAP_ECORRUPT;
	for (uint32_t n = 1; n <= q->flow.used; n++) {
		if (!neap_flow_at(q, n)->key.of)
			continue;
		idle += !neap_flow_at(q, n)->count;
		if (check_flow(q, n))
			return NEAP_ECORRUPT;
	}
	for (uint32_t n = q->idle; n; older = n, n = neap_flow_at(q, n)->newer)
		if (neap_flow_at(q, n)->count || neap_flow_at(q, n)->older != older ||
		    listed++ > idle)
			return NEAP_ECORRUPT;
	return listed == idle && q->idle_last == older ? NEAP_OK : NEAP_ECORRUPT;
}

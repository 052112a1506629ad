/* SPDX-License-Identifier: MIT */
/* property_queue.c - a waiting room against a list of people, and against what fair means.
 *
 * Random traffic on queue.c and on the model (model/room.h): after every step the same one is
 * first, the same one would have to go, and queue_check has looked at every link. Then, without
 * the model: flows that always wait are served alike to within one cost each, a stream of new keys
 * passes nobody for ever, and memory stays what it was at the beginning.
 */
#include "../../engine/queue.h"
#include "room.h"
#include "trial.h"

#include <string.h>

enum { ALLS = 2, FLOWS = 5 };

static const struct neap_all alls[ALLS];

struct pair {
	struct neap_queue *queue;
	struct room room;
	uint32_t place[ROOM_PEOPLE], name[ROOM_PEOPLE];   /* of those who are there */
	int people;
	uint64_t arrivals;
	neap_ns now;
	int extreme;
};

static void open_both(struct dice *d, struct pair *p)
{
	static const neap_ns ageing[] = {0, 0, 7, 100, 1000000};
	memset(p, 0, sizeof *p);
	p->extreme = !dice_between(d, 0, 7);
	p->room.capacity = (int)dice_any_size(d, 1, 40);
	p->room.overflow = (int)dice_between(d, NEAP_REJECT, NEAP_DROP_LOWEST);
	p->room.ageing_ns = ageing[dice_between(d, 0, 4)];
	if (p->extreme && p->room.ageing_ns)
		p->room.ageing_ns = neap_horizon;
	p->queue = neap_queue_open((uint32_t)p->room.capacity, p->room.overflow, p->room.ageing_ns);
	if (!p->queue)
		trial_fail("no memory");
}

static struct room_person anybody(struct dice *d, struct pair *p)
{
	struct room_person o = {
		.key = (uint64_t)dice_between(d, 0, FLOWS - 1),
		.arrival = ++p->arrivals, .since = p->now, .name = (uint32_t)p->arrivals,
		.priority = (int32_t)dice_between(d, -1, 2),
		.all = &alls[dice_between(d, 0, 4) == 0],
	};
	if (!dice_between(d, 0, 4))
		o.key = dice_throw(d);
	for (int i = 0; i < 2; i++)
		o.cost[i] = dice_between(d, 0, 2) ? dice_between(d, 0, 1) : dice_between(d, 0, 9);
	if (p->extreme) {
		o.priority = dice_between(d, 0, 1) ? INT32_MIN : INT32_MAX;
		for (int i = 0; i < NEAP_COSTS; i++)
			o.cost[i] = INT64_C(1) << dice_between(d, 0, 59);
	}
	return o;
}

static void join(struct pair *p, const struct room_person *o)
{
	struct neap_entry e = {
		.request = {.all = o->all, .flow = o->key, .priority = o->priority},
		.arrival = o->arrival, .since = o->since, .waiter = o->name,
	};
	memcpy(e.request.cost, o->cost, sizeof o->cost);
	room_join(&p->room, o);
	p->place[p->people] = neap_queue_join(p->queue, &e);
	p->name[p->people++] = o->name;
}

static void go(struct pair *p, int i, int served)
{
	room_go(&p->room, p->name[i], served);
	(served ? neap_queue_serve : neap_queue_leave)(p->queue, p->place[i]);
	p->people--;
	p->name[i] = p->name[p->people];
	p->place[i] = p->place[p->people];
}

static uint32_t name_at(const struct pair *p, uint32_t place)
{
	return place ? p->queue->place[place].entry.waiter : 0;
}

static int index_of(const struct pair *p, uint32_t name)
{
	int i = 0;
	while (p->name[i] != name)
		i++;
	return i;
}

static void expect_same(struct pair *p)
{
	uint32_t first = name_at(p, neap_queue_first(p->queue)), want = room_first(&p->room);
	struct neap_queue_stats s;
	if (neap_queue_check(p->queue))
		trial_fail("the queue is not sound");
	if (first != want)
		trial_fail("%u is first, not %u", first, want);
	neap_queue_stats(p->queue, &s);
	if (s.waiting != p->people || s.flows != p->room.keys ||
	    s.classes != room_priorities(&p->room))
		trial_fail("%ld wait, %ld flows, %ld classes; not %d, %d, %d", s.waiting, s.flows,
			   s.classes, p->people, p->room.keys, room_priorities(&p->room));
}

/* Somebody comes: stays, or goes at once for a reason of its own, or somebody has to go. */
static void come(struct dice *d, struct pair *p)
{
	struct room_person o = anybody(d, p);
	neap_sum queued[NEAP_COSTS];
	room_sum want[NEAP_COSTS];
	join(p, &o);
	expect_same(p);
	uint32_t me = p->place[p->people - 1];
	uint32_t victim_at = neap_queue_victim(p->queue, me), victim = name_at(p, victim_at);
	if (victim != room_victim(&p->room))
		trial_fail("%u has to go, not %u", victim, room_victim(&p->room));
	int64_t ahead = neap_queue_ahead(p->queue, me, victim_at, queued);
	if (ahead != room_ahead(&p->room, o.name, want) || memcmp(queued, want, sizeof want))
		trial_fail("%ld ahead, not %d, or not what they cost", ahead,
			   room_ahead(&p->room, o.name, want));
	int leaves = !dice_between(d, 0, 5);
	if (leaves || (room_first(&p->room) == o.name && dice_between(d, 0, 1)))
		go(p, p->people - 1, !leaves);
	else if (victim)
		go(p, index_of(p, victim), 0);
}

static void same_as_a_list(struct dice *d)
{
	static struct pair p;
	for (int64_t ops = trial_ops(60000); ops > 0;) {
		open_both(d, &p);
		int crowded = (int)dice_between(d, 1, 6);
		for (int i = 0; i < 300; i++, ops--) {
			p.now += dice_between(d, 0, 3) ? 0 : dice_any_size(d, 1, 300);
			if (!p.people || dice_between(d, 0, 6) <= crowded)
				come(d, &p);
			else if (dice_between(d, 0, 4))
				go(&p, index_of(&p, room_first(&p.room)), 1);
			else
				go(&p, (int)dice_between(d, 0, p.people - 1), !dice_between(d, 0, 9));
			expect_same(&p);
		}
		neap_queue_close(p.queue);
	}
}

/* ---- fair ---- */

static uint32_t enter(struct neap_queue *q, uint64_t flow, int64_t cost, uint64_t arrival)
{
	struct neap_entry e = {.request = {.cost = {cost}, .flow = flow}, .arrival = arrival,
			       .waiter = (uint32_t)flow};
	return neap_queue_join(q, &e);
}

/* Everybody always wants more; whoever is served asks again, for more or less. */
static void alike_by_cost(struct dice *d)
{
	enum { MOST = 1000 };
	for (int64_t ops = trial_ops(300000); ops > 0;) {
		int64_t had[FLOWS + 1] = {0}, most[FLOWS + 1];
		struct neap_queue *q = neap_queue_open(FLOWS * 2, NEAP_REJECT, 0);
		uint64_t arrivals = 0;
		for (uint64_t flow = 1; flow <= FLOWS; flow++) {
			most[flow] = dice_any_size(d, 1, MOST);
			enter(q, flow, dice_between(d, 1, most[flow]), ++arrivals);
			enter(q, flow, dice_between(d, 1, most[flow]), ++arrivals);
		}
		for (int i = 0; i < 1000; i++, ops--) {
			uint32_t first = neap_queue_first(q);
			uint32_t flow = q->place[first].entry.waiter;
			had[flow] += q->place[first].entry.request.cost[0];
			neap_queue_serve(q, first);
			enter(q, flow, dice_between(d, 1, most[flow]), ++arrivals);
			for (int a = 1; a <= FLOWS; a++)
				for (int b = 1; b <= FLOWS; b++)
					if (had[a] - had[b] > most[a] + most[b])
						trial_fail("one had %ld, another %ld", had[a], had[b]);
		}
		neap_queue_close(q);
	}
}

/* One new key for each that is served, for as long as it takes. */
static void new_keys_pass_nobody_for_ever(struct dice *d)
{
	for (int64_t ops = trial_ops(2000); ops > 0; ops--) {
		int crowd = (int)dice_between(d, 1, 30), steps = 0;
		struct neap_queue *q = neap_queue_open(40, NEAP_REJECT, 0);
		uint64_t keys = 1, arrivals = 0;
		enter(q, 1, 1, ++arrivals);
		uint32_t old = enter(q, 1, 1, ++arrivals);
		for (int i = 0; i < crowd; i++)
			enter(q, ++keys, 1, ++arrivals);
		for (; neap_queue_first(q) != old; steps++) {
			neap_queue_serve(q, neap_queue_first(q));
			enter(q, ++keys, 1, ++arrivals);
			if (steps > 3 * crowd + 3)
				trial_fail("%d went before, of a crowd of %d", steps, crowd);
		}
		neap_queue_close(q);
	}
}

static void serve_and_come_again(struct neap_queue *q, uint64_t arrival)
{
	uint32_t first = neap_queue_first(q), flow = q->place[first].entry.waiter;
	neap_queue_serve(q, first);
	enter(q, flow, 1, arrival);
}

/* A newcomer does not pay for what others had before it came, nor do they for it. */
static void newcomers_are_served_soon(struct dice *d)
{
	for (int64_t ops = trial_ops(300); ops > 0; ops--) {
		struct neap_queue *q = neap_queue_open(FLOWS * 2 + 1, NEAP_REJECT, 0);
		uint64_t arrivals = 0;
		int others = (int)dice_between(d, 1, FLOWS), steps = 0;
		for (int i = 0; i < others * 2; i++)
			enter(q, 1 + (uint64_t)(i % others), 1, ++arrivals);
		for (int64_t i = dice_between(d, 0, 500); i > 0; i--)
			serve_and_come_again(q, ++arrivals);
		uint32_t me = enter(q, 99, 1, ++arrivals);
		for (; neap_queue_first(q) != me; steps++) {
			serve_and_come_again(q, ++arrivals);
			if (steps > 2 * others)
				trial_fail("%d went before, of %d who had been there", steps, others);
		}
		neap_queue_close(q);
	}
}

/* a came and went many times, alone; b is new. When both want, b is one turn ahead, not many. */
static void alone_nobody_owes(struct dice *d)
{
	struct neap_queue *q = neap_queue_open(10, NEAP_REJECT, 0);
	uint64_t arrivals = 0;
	for (int64_t i = dice_between(d, 1, 1000); i > 0; i--)
		neap_queue_serve(q, enter(q, 1, 1, ++arrivals));
	uint32_t a1 = enter(q, 1, 1, ++arrivals), a2 = enter(q, 1, 1, ++arrivals);
	uint32_t b1 = enter(q, 2, 1, ++arrivals), b2 = enter(q, 2, 1, ++arrivals);
	uint32_t order[] = {b1, a1, b2, a2};
	for (int i = 0; i < 4; i++) {
		if (neap_queue_first(q) != order[i])
			trial_fail("turn %d is another's", i + 1);
		neap_queue_serve(q, order[i]);
	}
	neap_queue_close(q);
}

static void memory_knows_no_keys(struct dice *d)
{
	struct neap_queue *q = neap_queue_open(16, NEAP_REJECT, 0);
	struct neap_queue_stats before, after;
	uint64_t arrivals = 0;
	neap_queue_stats(q, &before);
	for (int64_t ops = trial_ops(300000); ops > 0; ops--) {
		while (q->count < 16)
			enter(q, dice_throw(d), dice_between(d, 1, 100), ++arrivals);
		neap_queue_serve(q, neap_queue_first(q));
	}
	neap_queue_stats(q, &after);
	if (after.bytes != before.bytes || after.flows > 17 || neap_queue_check(q))
		trial_fail("%ld bytes became %ld, with %ld flows", before.bytes, after.bytes,
			   after.flows);
	neap_queue_close(q);
}

static void opens_in_range(struct dice *d)
{
	(void)d;
	struct neap_queue *most = neap_queue_open(1, NEAP_DROP_LOWEST, neap_horizon);
	if (!most || neap_queue_open(0, NEAP_REJECT, 0) || neap_queue_open((1 << 24) + 1, 0, 0) ||
	    neap_queue_open(1, -1, 0) || neap_queue_open(1, 3, 0) || neap_queue_open(1, 0, -1) ||
	    neap_queue_open(1, 0, neap_horizon + 1))
		trial_fail("a number out of range");
	neap_queue_close(most);
	neap_queue_close(NULL);
}

int main(void)
{
	trial_run("a waiting room calls people as a list of them would", same_as_a_list);
	trial_run("keys that always wait are served alike, by cost", alike_by_cost);
	trial_run("a stream of new keys passes nobody for ever", new_keys_pass_nobody_for_ever);
	trial_run("a newcomer's turn is in this round or the next", newcomers_are_served_soon);
	trial_run("a key that was alone owes at most one turn", alone_nobody_owes);
	trial_run("memory does not grow with keys ever served", memory_knows_no_keys);
	trial_run("capacity, overflow and ageing have ranges", opens_in_range);
	return trial_verdict();
}

/* SPDX-License-Identifier: MIT */
/* room.c - the rules of a waiting room, without anything that makes them fast.
 *
 * One array of people in order of arrival, and one of keys; every question looks at all of them.
 * The rules, as queue.c and flow.c state them:
 *
 *   Of one key and priority, the eldest goes first. Of the keys of one priority, the one with the
 *   lowest tag, and then the one whose eldest came first. Of the priorities, the highest; with
 *   ageing that of the one for whom since - priority * ageing_ns is lowest, or who came first.
 *   A grant moves its key's tag on by its cost, and its priority's virtual time to the tag before,
 *   and on by cost / keys that wait, up to the tag after, while other keys wait.
 *   A key without people keeps its tag: until virtual time has reached it, or there are more keys
 *   than places and one. Two that have nothing to remember go for each that comes to be idle.
 */
#include "room.h"

#include <string.h>

static int is_of(const struct room_person *p, const struct room_key *k)
{
	return p->priority == k->priority && p->key == k->key;
}

static int waits(const struct room *r, const struct room_key *k)
{
	int count = 0;
	for (int i = 0; i < r->people; i++)
		count += is_of(&r->person[i], k);
	return count;
}

static int keys_waiting(const struct room *r, int32_t priority)
{
	int count = 0;
	for (int i = 0; i < r->keys; i++)
		count += r->key[i].priority == priority && waits(r, &r->key[i]);
	return count;
}

static struct room_key *key_of(const struct room *r, const struct room_person *p)
{
	for (int i = 0; i < r->keys; i++)
		if (is_of(p, &r->key[i]))
			return (struct room_key *)(uintptr_t)&r->key[i];
	return NULL;
}

/* Virtual time is written down with every key of the priority, so it goes with the last. */
static room_sum start_of(const struct room *r, int32_t priority)
{
	for (int i = 0; i < r->keys; i++)
		if (r->key[i].priority == priority)
			return r->key[i].start;
	return 0;
}

static void start_at(struct room *r, int32_t priority, room_sum start)
{
	for (int i = 0; i < r->keys; i++)
		if (r->key[i].priority == priority)
			r->key[i].start = start;
}

static void forget(struct room *r, struct room_key *k)
{
	memmove(k, k + 1, (size_t)(r->key + r->keys - k - 1) * sizeof *k);
	r->keys--;
}

static struct room_key *idle_longest(struct room *r)
{
	for (int i = 0; i < r->keys; i++)
		if (!waits(r, &r->key[i]))
			return &r->key[i];
	return NULL;
}

static int same_limits(const struct room_person *a, const struct room_person *b)
{
	return a->all == b->all;
}

void room_join(struct room *r, const struct room_person *p)
{
	struct room_key *k = key_of(r, p);
	if (!k) {
		if (r->keys > r->capacity)
			forget(r, idle_longest(r));
		room_sum start = start_of(r, p->priority);
		k = &r->key[r->keys++];
		*k = (struct room_key){p->key, start, start, p->priority, 0};
	}
	if (!waits(r, k) && k->tag < k->start)
		k->tag = k->start;
	for (int i = 0; i < r->people; i++)
		if (is_of(&r->person[i], k) && !same_limits(&r->person[i], p))
			k->mixed = 1;
	r->person[r->people++] = *p;
}

static void charge(struct room *r, struct room_key *k, const struct room_person *p)
{
	room_sum cost = 0, start = k->start, before = k->tag;
	for (int i = 0; i < NEAP_COSTS; i++)
		cost += (room_sum)p->cost[i] << 32;
	k->tag += cost;
	start = before > start ? before : start;
	int waiting = keys_waiting(r, k->priority);
	if (cost && waiting - (waits(r, k) > 0) > 0) {
		room_sum on = start + (cost + waiting - 1) / waiting;
		on = on > k->tag ? k->tag : on;
		start = on > start ? on : start;
	}
	if (cost)
		start_at(r, k->priority, start);
}

static struct room_person *find(const struct room *r, uint32_t name)
{
	for (int i = 0; i < r->people; i++)
		if (r->person[i].name == name)
			return (struct room_person *)(uintptr_t)&r->person[i];
	return NULL;
}

void room_go(struct room *r, uint32_t name, int served)
{
	struct room_person *at = find(r, name), gone = *at;
	memmove(at, at + 1, (size_t)(r->person + r->people - at - 1) * sizeof *at);
	r->people--;
	struct room_key *k = key_of(r, &gone);
	if (served)
		charge(r, k, &gone);
	if (waits(r, k))
		return;
	struct room_key last = *k;
	last.mixed = 0;
	forget(r, k);
	r->key[r->keys++] = last;
	for (int i = 0; i < 2 && (k = idle_longest(r)) && k->tag <= k->start; i++)
		forget(r, k);
}

/* ---- who ---- */

static int is_head(const struct room *r, const struct room_person *p)
{
	for (const struct room_person *o = r->person; o < p; o++)
		if (is_of(o, key_of(r, p)))
			return 0;
	return 1;
}

static const struct room_person *first_of(const struct room *r, int32_t priority)
{
	const struct room_person *first = NULL;
	for (const struct room_person *p = r->person; p < r->person + r->people; p++)
		if (p->priority == priority && is_head(r, p) &&
		    (!first || key_of(r, p)->tag < key_of(r, first)->tag))
			first = p;
	return first;
}

static room_sum urgency(const struct room *r, const struct room_person *p)
{
	return r->ageing_ns ? p->since - (room_sum)p->priority * r->ageing_ns
			    : -(room_sum)p->priority;
}

uint32_t room_first(const struct room *r)
{
	const struct room_person *best = r->person;
	for (const struct room_person *p = r->person; p < r->person + r->people; p++)
		if (urgency(r, p) < urgency(r, best))
			best = p;
	return r->people ? first_of(r, best->priority)->name : 0;
}

uint32_t room_victim(const struct room *r)
{
	const struct room_person *least = r->person, *newest = &r->person[r->people - 1];
	if (r->people <= r->capacity)
		return 0;
	if (r->overflow == NEAP_DROP_OLDEST)
		return r->person->name;
	for (const struct room_person *p = r->person; p <= newest; p++)
		if (urgency(r, p) >= urgency(r, least))
			least = p;
	return r->overflow == NEAP_DROP_LOWEST ? least->name : newest->name;
}

int room_ahead(const struct room *r, uint32_t name, room_sum *queued)
{
	const struct room_person *me = find(r, name), *first = find(r, room_first(r));
	const struct room_key *k = key_of(r, me);
	uint32_t victim = room_victim(r);
	const struct room_person *gone = victim ? find(r, victim) : NULL;
	int ahead = 0;
	/* with ageing, who lends his priority his age may be the one who goes */
	if (r->ageing_ns && gone && gone->priority == first->priority)
		first = NULL;
	memset(queued, 0, NEAP_COSTS * sizeof *queued);
	for (const struct room_person *p = r->person; p < me; p++) {
		int counts = is_of(p, k) ? !k->mixed : same_limits(p, me);
		if (p->name == victim || !(is_of(p, k) || p == first))
			continue;
		ahead++;
		for (int i = 0; i < NEAP_COSTS; i++)
			queued[i] += counts ? p->cost[i] : 0;
	}
	return ahead;
}

int room_priorities(const struct room *r)
{
	int count = 0;
	for (int i = 0; i < r->keys; i++) {
		int seen = 0;
		for (int j = 0; j < i; j++)
			seen |= r->key[j].priority == r->key[i].priority;
		count += !seen;
	}
	return count;
}

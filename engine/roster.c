/* SPDX-License-Identifier: MIT */
/* roster.c - records found by a pointer and a tag.
 *
 * Limiters are plain structs in their owner's memory and know nothing of waiting: most never have
 * anybody wait. So the engine keeps the record of who waits for one beside it, for as long as
 * somebody does, and finds it by the limiter's address: open addressing with linear probing, at
 * most half full, and removal by shifting back, so there are no tombstones to sweep.
 *
 * Records lie in one growing array and are named by their index, so that growing moves no name. The
 * buckets double, and move over 16 at a time, with every record that is added: until that is done a
 * record is looked for in both, and what has left the old ones leaves GONE there, so that no chain
 * is cut.
 *
 * Memory is asked for in _reserve alone; whoever cannot afford to fail later reserves first.
 */
#include "line.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static struct neap_key *key_at(const struct neap_roster *r, uint32_t name)
{
	return (struct neap_key *)(void *)(r->record + name * r->size);
}

enum { STEP = 16 };
static const uint32_t GONE = UINT32_MAX;

static uint32_t home(uint32_t buckets, const void *of, uint64_t tag)
{
	uint64_t x = (uint64_t)(uintptr_t)of + tag * UINT64_C(0x9E3779B97F4A7C15);
	x ^= x >> 32;
	x *= UINT64_C(0xD6E8FEB86659FD93);   /* an odd constant with well mixed bits */
	x ^= x >> 32;
	return (uint32_t)x & (buckets - 1);
}

void neap_roster_init(struct neap_roster *r, size_t size)
{
	*r = (struct neap_roster){.size = size};
}

void neap_roster_free(struct neap_roster *r)
{
	free(r->record);
	free(r->bucket);
	free(r->old);
	neap_roster_init(r, r->size);
}

static void seat(struct neap_roster *r, uint32_t name)
{
	uint32_t b = home(r->buckets, key_at(r, name)->of, key_at(r, name)->tag);
	while (r->bucket[b])
		b = (b + 1) & (r->buckets - 1);
	r->bucket[b] = name;
}

static void move_some(struct neap_roster *r, uint32_t most)
{
	for (; r->old && most && r->moved < r->olds; most--, r->moved++) {
		uint32_t name = r->old[r->moved];
		if (name && name != GONE) {
			seat(r, name);
			r->old[r->moved] = GONE;
		}
	}
	if (r->old && r->moved == r->olds) {
		free(r->old);
		r->old = NULL;
	}
}

int neap_roster_reserve(struct neap_roster *r, uint32_t count)
{
	if (count <= r->room)
		return NEAP_OK;
	uint32_t room = r->room ? r->room : 8;
	while (room < count)
		room *= 2;
	uint32_t *bucket = calloc((size_t)room * 2, sizeof *bucket);
	char *record = bucket ? realloc(r->record, ((size_t)room + 1) * r->size) : NULL;
	if (!record) {
		free(bucket);
		return NEAP_ENOMEM;
	}
	r->record = record;
	move_some(r, UINT32_MAX);   /* done long ago, unless room was reserved and never used */
	r->old = r->bucket;
	r->olds = r->buckets;
	r->moved = 0;
	r->bucket = bucket;
	r->room = room;
	r->buckets = room * 2;
	return NEAP_OK;
}

/* The bucket of the record, or 'buckets'. */
static uint32_t find_in(const struct neap_roster *r, const uint32_t *bucket, uint32_t buckets,
			const void *of, uint64_t tag)
{
	for (uint32_t b = home(buckets, of, tag); bucket[b]; b = (b + 1) & (buckets - 1)) {
		const struct neap_key *key = bucket[b] == GONE ? NULL : key_at(r, bucket[b]);
		if (key && key->of == of && key->tag == tag)
			return b;
	}
	return buckets;
}

uint32_t neap_roster_find(const struct neap_roster *r, const void *of, uint64_t tag)
{
	if (!r->count)
		return 0;
	uint32_t b = find_in(r, r->bucket, r->buckets, of, tag);
	if (b < r->buckets)
		return r->bucket[b];
	if (!r->old)
		return 0;
	b = find_in(r, r->old, r->olds, of, tag);
	return b < r->olds ? r->old[b] : 0;
}

uint32_t neap_roster_add(struct neap_roster *r, const void *of, uint64_t tag)
{
	assert(r->count < r->room && of && !neap_roster_find(r, of, tag));
	uint32_t name = r->free;
	if (name)
		r->free = key_at(r, name)->next_free;
	else
		name = ++r->used;
	memset(key_at(r, name), 0, r->size);
	*key_at(r, name) = (struct neap_key){of, tag, 0};
	seat(r, name);
	move_some(r, STEP);
	r->count++;
	return name;
}

void neap_roster_remove(struct neap_roster *r, uint32_t name)
{
	struct neap_key *key = key_at(r, name);
	uint32_t last = r->buckets - 1, hole = find_in(r, r->bucket, r->buckets, key->of, key->tag);
	if (hole > last) {
		r->old[find_in(r, r->old, r->olds, key->of, key->tag)] = GONE;
	} else {
		/* whoever sits behind the hole and would rather be there, or before, moves up */
		for (uint32_t b = (hole + 1) & last; r->bucket[b]; b = (b + 1) & last) {
			const struct neap_key *k = key_at(r, r->bucket[b]);
			uint32_t wish = home(r->buckets, k->of, k->tag);
			if (((b - wish) & last) >= ((b - hole) & last)) {
				r->bucket[hole] = r->bucket[b];
				hole = b;
			}
		}
		r->bucket[hole] = 0;
	}
	*key = (struct neap_key){NULL, 0, r->free};
	r->free = name;
	r->count--;
}

int64_t neap_roster_bytes(const struct neap_roster *r)
{
	uint64_t buckets = r->buckets + (r->old ? r->olds : 0);
	return (int64_t)((r->record ? r->room + 1 : 0) * r->size + buckets * sizeof(uint32_t));
}

int neap_roster_check(const struct neap_roster *r)
{
	uint32_t live = 0, seated = 0;
	for (uint32_t name = 1; name <= r->used; name++) {
		const struct neap_key *key = key_at(r, name);
		live += key->of != NULL;
		if (key->of && neap_roster_find(r, key->of, key->tag) != name)
			return NEAP_ECORRUPT;
	}
	for (uint32_t b = 0; b < r->buckets; b++)
		seated += r->bucket[b] != 0;
	for (uint32_t b = 0; r->old && b < r->olds; b++)
		seated += r->old[b] != 0 && r->old[b] != GONE;
	return live == r->count && seated == r->count && r->count <= r->room ? NEAP_OK
									      : NEAP_ECORRUPT;
}

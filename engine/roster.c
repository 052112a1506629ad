/* SPDX-License-Identifier: MIT */
/* roster.c - records found by a pointer and a tag.
 *
 * Limiters are plain structs in their owner's memory and know nothing of waiting: most never have
 * anybody wait. So the engine keeps the record of who waits for one beside it, for as long as
 * somebody does, and finds it by the limiter's address: open addressing with linear probing, at
 * most half full, and removal by shifting back, so there are no tombstones to sweep.
 *
 * Records lie in one growing array and are named by their index, so that growing moves no name.
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

static uint32_t home(const struct neap_roster *r, const void *of, uint64_t tag)
{
	uint64_t x = (uint64_t)(uintptr_t)of + tag * UINT64_C(0x9E3779B97F4A7C15);
	x ^= x >> 32;
	x *= UINT64_C(0xD6E8FEB86659FD93);   /* an odd constant with well mixed bits */
	x ^= x >> 32;
	return (uint32_t)x & (r->buckets - 1);
}

void neap_roster_init(struct neap_roster *r, size_t size)
{
	*r = (struct neap_roster){.size = size};
}

void neap_roster_free(struct neap_roster *r)
{
	free(r->record);
	free(r->bucket);
	neap_roster_init(r, r->size);
}

static void seat(struct neap_roster *r, uint32_t name)
{
	uint32_t b = home(r, key_at(r, name)->of, key_at(r, name)->tag);
	while (r->bucket[b])
		b = (b + 1) & (r->buckets - 1);
	r->bucket[b] = name;
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
	free(r->bucket);
	r->record = record;
	r->bucket = bucket;
	r->room = room;
	r->buckets = room * 2;
	for (uint32_t name = 1; name <= r->used; name++)
		if (key_at(r, name)->of)
			seat(r, name);
	return NEAP_OK;
}

uint32_t neap_roster_find(const struct neap_roster *r, const void *of, uint64_t tag)
{
	if (!r->count)
		return 0;
	for (uint32_t b = home(r, of, tag); r->bucket[b]; b = (b + 1) & (r->buckets - 1)) {
		const struct neap_key *key = key_at(r, r->bucket[b]);
		if (key->of == of && key->tag == tag)
			return r->bucket[b];
	}
	return 0;
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
	r->count++;
	return name;
}

void neap_roster_remove(struct neap_roster *r, uint32_t name)
{
	struct neap_key *key = key_at(r, name);
	uint32_t last = r->buckets - 1, hole = home(r, key->of, key->tag);
	while (r->bucket[hole] != name)
		hole = (hole + 1) & last;
	/* whoever sits behind the hole and would rather be there, or before, moves up */
	for (uint32_t b = (hole + 1) & last; r->bucket[b]; b = (b + 1) & last) {
		const struct neap_key *k = key_at(r, r->bucket[b]);
		uint32_t wish = home(r, k->of, k->tag);
		if (((b - wish) & last) >= ((b - hole) & last)) {
			r->bucket[hole] = r->bucket[b];
			hole = b;
		}
	}
	r->bucket[hole] = 0;
	*key = (struct neap_key){NULL, 0, r->free};
	r->free = name;
	r->count--;
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
	return live == r->count && seated == r->count && r->count <= r->room ? NEAP_OK
									      : NEAP_ECORRUPT;
}

/* SPDX-License-Identifier: MIT */
/* words.c - a table of keys written down, made again, and given another bound.
 *
 * What a key's word means, only its limit knows: so written down is what anybody understands, how
 * long a rate takes until it is full again, or how many permits are out. A limit that begins anew,
 * on another clock, with another secret or speed, makes its own word of that. Nothing is lost but
 * the part of a nanosecond, and that is rounded against the key.
 *
 * A table that is still being carried over from another limit is carried on with first, a few words
 * with each step of the walk, so that what is met has one meaning.
 */
#include "keyed.h"
#include "change.h"
#include "keys.h"

#include <assert.h>

static int64_t left_of(const struct neap_limiter *l, neap_ns now)
{
	if (l->kind == NEAP_SEMAPHORE)
		return l->as.semaphore.in_use;
	return neap_gcra_when(&l->as.gcra, l->as.gcra.burst >> l->as.gcra.shift, now) - now;
}

int64_t neap_keyed_walk(struct neap_keyed *k, uint64_t *cursor, neap_ns now, struct neap_word *out,
			int64_t max)
{
	assert(max > 0);
	if (!k->keys || k->like.kind == NEAP_PAUSE)
		return -1;
	if (k->old && *cursor == 0) {
		for (int64_t i = 0; i < max && k->old; i++) {
			neap_keyed_carry_some(k, now);
			if (!k->cursor)
				break;   /* those who are left have no place; they are few */
		}
		if (k->old && k->cursor)
			return 0;
	}
	int64_t count = 0, looks = 0, clock = neap_word_clock(&k->like, now);
	struct neap_limiter face = k->like;
	while (count < max && looks < max) {
		uint64_t key;
		int64_t word;
		int found = neap_keys_next(k->keys, cursor, &key, &word);
		if (found < 0)
			return count ? count : -1;
		looks += !found;   /* each at some lines of the table */
		if (!found || word <= clock)
			continue;
		*neap_face_word(&face) = word;
		out[count++] = (struct neap_word){key, left_of(&face, now)};
	}
	return count;
}

int neap_keyed_put(struct neap_keyed *k, uint64_t key, int64_t left, neap_ns now)
{
	assert(left >= 0);
	if (!k->keys || k->like.kind == NEAP_PAUSE)
		return NEAP_ERANGE;
	struct neap_limiter face = k->like;
	if (face.kind == NEAP_SEMAPHORE)
		face.as.semaphore.in_use = left;
	else
		neap_gcra_full_at(&face.as.gcra, left < neap_horizon - now ? now + left : neap_horizon);
	neap_keyed_forget(k, key);
	int64_t clock = neap_word_clock(&k->like, now);
	if (*neap_face_word(&face) <= clock)
		return NEAP_OK;
	neap_keys_turn_to(k->keys, now);
	int64_t *word = neap_keys_at(k->keys, key, clock);
	if (!word)
		return NEAP_EFULL;
	*word = *neap_face_word(&face);
	return NEAP_OK;
}

/* Permits that are out have their place, whatever the bound. */
static int bound_permits(struct neap_keyed *k, int64_t count_max)
{
	int64_t alive = neap_keys_count(k->keys, 0), word;
	uint64_t cursor = 0, key;
	k->count_max = count_max > alive ? count_max : alive;
	struct neap_keys *keys = neap_keyed_table(k);
	if (!keys)
		return NEAP_ENOMEM;
	for (int found; (found = neap_keys_next(k->keys, &cursor, &key, &word)) >= 0;) {
		int64_t *at = found && word > 0 ? neap_keys_at(keys, key, 0) : NULL;
		if (at)
			*at = word;
		else if (found && word > 0) {
			neap_keys_close(keys);
			return NEAP_EFULL;
		}
	}
	neap_keys_close(k->keys);
	k->keys = keys;
	return NEAP_OK;
}

int neap_keyed_bound(struct neap_keyed *k, int64_t count_max, neap_ns now)
{
	int64_t was = k->count_max;
	if (!k->keys || count_max == was)
		return NEAP_OK;
	const struct neap_limiter like = k->like;
	k->count_max = count_max;
	int code = like.kind == NEAP_SEMAPHORE
			   ? bound_permits(k, count_max)
			   : neap_keyed_change(k, &like, NEAP_KEEP_SPENT, now);
	if (code != NEAP_OK)
		k->count_max = was;
	return code;
}

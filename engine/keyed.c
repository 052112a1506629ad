/* SPDX-License-Identifier: MIT */
/* keyed.c - one limit, and a state of it for every key.
 *
 * A limit per caller is the same limit a million times: only its word differs, 8 bytes of a rate's
 * or a semaphore's hundred. So the word alone is kept, in a table (keys.c), and for as long as a
 * request is asked the limiter is put together again on the stack: a face. To ask, to take and to
 * give back a face is what it is for any limiter, so nothing below knows that keys exist, and
 * whatever goes for limiters, all of several among it, goes for keyed ones.
 *
 *      request ── key "ann" ──> table: word of "ann" ──╮
 *                                                       v
 *      term {keyed} ──────────────────────────> face: like, with that word ──> take, give, settle
 *                                                       │
 *                               table: word of "ann" <──╯ written back when something was done
 *
 * A key may have a limiter of its own instead (_set): another rate, or a kind that is more than a
 * word. And when the table has no room for another key there is a rule: the least recently seen one
 * makes room, or strangers share one limiter, or the stranger is turned away.
 *
 * When the limit changes, all words speak of another one, and to carry them over at once would be a
 * long pause. So there is a second table for a while: the old one, in which time stands still at the
 * instant of the change. A key that is wanted is carried over first, and with every such call some
 * more are, until the old table is empty.
 *
 * A key that is held (_hold) is more than a word, too, for that time: held.c keeps it.
 *
 * Who waits for a keyed limiter waits for its key: posts are known by limiter and key (ask.c).
 *
 * The table may lie in a segment (stripes.c), and what is here is then one process's way to it. A
 * face is then a copy of what others may change at once, and is read again by who takes (faces.c).
 *
 * Invariants:
 *   a face's word is the table's until that table is used again, and one request uses each once
 *   nothing is written for a look, or for what was refused
 *   who is held has no word in a table, or one that is as good as none
 */
#include "keyed.h"
#include "change.h"
#include "keys.h"
#include "segment.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { CARRIES = 8 };   /* words carried over by a call, besides its own */

struct own {
	struct neap_key key;      /* of: the keyed; tag: the key's hash */
	struct neap_limiter *limiter;
};

/* ---- words ---- */

/* Up to here a word is as good as none: a rate's when it is full again, permits when none is out, one
 * that is the caller's when it is past. */
int64_t neap_word_clock(const struct neap_limiter *l, neap_ns now)
{
	return l->kind == NEAP_GCRA ? neap_gcra_clock(&l->as.gcra, now)
	       : l->kind == NEAP_PAUSE ? now : 0;
}

/* The same 1 ns ago: a word that has become as good as none within this ns may be waited for, and
 * whoever did is charged exactly, and has its place. */
static int64_t clock_before(const struct neap_limiter *l, neap_ns now)
{
	return neap_word_clock(l, now > 0 ? now - 1 : 0);
}

struct neap_limiter *neap_keyed_own(const struct neap_keyed *k, uint64_t key)
{
	uint32_t name = neap_roster_find(&k->own, k, key);
	return name ? ((struct own *)(void *)(k->own.record + name * k->own.size))->limiter : NULL;
}

const struct neap_limiter *neap_keyed_shared(const struct neap_keyed *k)
{
	return k->slot ? &k->slot->limiter : &k->shared;
}

/* ---- from one limit to another ---- */

/* What becomes of a word of the old table. One that was as good as none is none, whatever is kept. */
static int64_t carried(const struct neap_keyed *k, int64_t word)
{
	struct neap_limiter was = k->was;
	if (word <= neap_word_clock(&was, k->changed))
		return 0;
	*neap_face_word(&was) = word;
	return neap_gcra_carry(&was.as.gcra, &k->like.as.gcra, k->keep, k->changed);
}

/* 0 when there is no place: those who came since the change have them. Then it stays where it is. */
static int carry(struct neap_keyed *k, uint64_t key, int64_t word, int64_t clock)
{
	int64_t is = carried(k, word);
	int64_t *to = is > clock ? neap_keys_at(k->keys, key, clock) : NULL;
	if (is > clock && !to) {
		k->left = 1;
		return 0;
	}
	if (to)
		*to = is;
	neap_keys_forget(k->old, key);
	return 1;
}

void neap_keyed_carry_some(struct neap_keyed *k, neap_ns now)
{
	int64_t clock = clock_before(&k->like, now);
	uint64_t key;
	int64_t word;
	int found = neap_keys_next(k->old, &k->cursor, &key, &word);
	for (int n = 0; found == 1 && n < CARRIES; n++) {
		carry(k, key, word, clock);
		found = neap_keys_next(k->old, &k->cursor, &key, &word);
	}
	if (found == 1)
		carry(k, key, word, clock);
	if (found >= 0)
		return;
	if (k->left) {   /* once more, for them */
		k->left = 0;
		k->cursor = 0;
	} else if (neap_keys_close_some(k->old)) {
		k->old = NULL;
	}
}

/* The word that the old table has for a key, or NULL. */
static int64_t *old_word(struct neap_keyed *k, uint64_t key)
{
	return k->old ? neap_keys_find(k->old, key, neap_word_clock(&k->was, k->changed)) : NULL;
}

/* How many of the old table will be alive when they are carried over. */
static int64_t count_old(const struct neap_keyed *k, neap_ns now)
{
	int64_t count = 0, word, clock = neap_word_clock(&k->like, now);
	uint64_t cursor = 0, key;
	for (int found; (found = neap_keys_next(k->old, &cursor, &key, &word)) >= 0;)
		count += found && carried(k, word) > clock;
	return count;
}

/* The record of a key that is held, or that owes something from that time. */
static struct neap_held *held_of(struct neap_keyed *k, uint64_t key, neap_ns now, int how)
{
	struct neap_held *h = neap_helds_find(&k->held, k, key);
	if (!h || neap_held_is_on(h, now))
		return h;
	if (!neap_held_is_over(h, &k->like.as.gcra, now)) {
		int64_t least, clock = clock_before(&k->like, now);
		neap_ns idle_at;
		if (how == NEAP_LOOK || !neap_keys_room(k->keys, key, clock, &least, &idle_at))
			return h;
		*neap_keys_at(k->keys, key, clock) = h->word;
	}
	neap_helds_remove(&k->held, h);
	return NULL;
}

/* When a word of the table that is in the way will be as good as none. */
static neap_ns frees_at(const struct neap_keyed *k, int64_t word)
{
	return k->like.kind == NEAP_GCRA ? neap_gcra_reaches(&k->like.as.gcra, word) : neap_on_give;
}

/* ---- faces ---- */

struct neap_limiter *neap_keyed_face(struct neap_face *f, struct neap_keyed *k, uint64_t key,
				     neap_ns now, int how)
{
	struct neap_limiter *own = neap_keyed_own(k, key);
	if (own)
		return own;
	f->of = k;
	f->key = key;
	f->stripe = NULL;
	if (k->slot)
		return neap_face_share(f, now, how);
	f->instead = k->full == NEAP_SHARED ? &k->shared : NULL;
	f->limiter = k->like;
	f->clock = clock_before(&k->like, now);
	f->word = NULL;
	f->room_at = 0;
	if (!k->keys) {
		f->limiter.kind = NEAP_PAUSE;   /* of no importance: nobody gets past it */
		f->room_at = neap_on_give;
		return &f->limiter;
	}
	neap_keys_turn_to(k->keys, now);
	int64_t least, *old = old_word(k, key);
	neap_ns idle_at;
	if (how != NEAP_LOOK && k->old) {
		int stays = old && !carry(k, key, *old, f->clock);
		neap_keyed_carry_some(k, now);
		old = stays ? old_word(k, key) : NULL;
	}
	struct neap_held *held = held_of(k, key, now, how);
	if (held) {
		neap_held_wear(held, &f->limiter.as.gcra);
		f->word = &held->word;
		return &f->limiter;
	}
	f->word = neap_keys_find(k->keys, key, f->clock);
	if (old) {   /* who only looks moves nothing */
		*neap_face_word(&f->limiter) = carried(k, *old);
		if (how != NEAP_LOOK && !neap_keys_room(k->keys, key, f->clock, &least, &idle_at)) {
			k->refused += how == NEAP_WANT;
			f->room_at = frees_at(k, least) + 1;   /* it is looked at 1 ns later */
		}
		return &f->limiter;
	}
	if (f->word) {
		*neap_face_word(&f->limiter) = *f->word;
		if (how == NEAP_WANT)
			neap_keys_touch(k->keys, f->word);
		return &f->limiter;
	}
	f->clock = neap_word_clock(&k->like, now);   /* who is as good as new by now makes room first */
	if (!neap_keys_room(k->keys, key, f->clock, &least, &idle_at)) {
		k->shares += k->full == NEAP_SHARED && how == NEAP_WANT;
		k->refused += k->full != NEAP_SHARED && how == NEAP_WANT;
		if (k->full == NEAP_SHARED)
			return &k->shared;
		f->room_at = frees_at(k, least);
		f->room_at = idle_at < f->room_at ? idle_at : f->room_at;
	}
	return &f->limiter;
}

/* ---- the limiter itself ---- */

/* Permits that are out come back, to those who hold them: a key is not forgotten before that. */
struct neap_keys *neap_keyed_table(const struct neap_keyed *k)
{
	struct neap_keys *keys = neap_keys_open(k->count_max, k->secret);
	if (k->like.kind == NEAP_SEMAPHORE)
		return keys;
	if (keys && (k->idle_ns > 0 || k->full == NEAP_LEAST_RECENT) &&
	    neap_keys_remember(keys, k->idle_ns, k->full)) {
		neap_keys_close(keys);
		return NULL;
	}
	return keys;
}

static struct neap_keyed *begin(int64_t count_max, int full)
{
	struct neap_keyed *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	neap_roster_init(&k->own, sizeof(struct own));
	neap_helds_init(&k->held);
	k->full = full;
	k->count_max = count_max;
	return k;
}

struct neap_keyed *neap_keyed_open(const struct neap_limiter *like, int64_t count_max, int full,
				   neap_ns idle_ns, const uint8_t *secret)
{
	if ((like && !neap_is_word(like)) || full < NEAP_REFUSE || full > NEAP_SHARED)
		return NULL;
	struct neap_keyed *k = begin(count_max, full);
	if (!k)
		return NULL;
	k->idle_ns = idle_ns;
	memcpy(k->secret, secret, sizeof k->secret);
	if (!like)
		return k;
	k->like = *like;
	k->like.shared = 0;
	k->shared = k->like;
	*neap_face_word(&k->like) = 0;
	*neap_face_word(&k->shared) = 0;
	k->keys = neap_keyed_table(k);
	if (!k->keys) {
		neap_keyed_close(k);
		return NULL;
	}
	return k;
}

struct neap_keyed *neap_keyed_over(struct neap_slot *s, int full)
{
	struct neap_keyed *k = begin(s->stripes.keys_max, full);
	if (k)
		k->slot = s;
	return k;
}

void neap_keyed_idle(struct neap_keyed *k, neap_ns idle_ns)
{
	assert(k->slot && idle_ns >= 0 && idle_ns <= neap_horizon);
	k->idle_ns = idle_ns;
}

int neap_keyed_change(struct neap_keyed *k, const struct neap_limiter *like, int keep, neap_ns now)
{
	if (k->slot)
		return neap_segment_change(k->slot, like, keep, 0, now);
	if (!k->keys || like->kind != k->like.kind || like->kind == NEAP_PAUSE)
		return NEAP_ERANGE;
	struct neap_limiter fresh = *like;
	fresh.shared = 0;
	*neap_face_word(&fresh) = 0;
	if (like->kind == NEAP_SEMAPHORE) {   /* what is out is out */
		k->shared.as.semaphore.limit = like->as.semaphore.limit;
		k->like = fresh;
		return NEAP_OK;
	}
	struct neap_keys *keys = neap_keyed_table(k);
	if (!keys)
		return NEAP_ENOMEM;
	k->cursor = 0;
	k->left = 0;
	if (k->old)
		do
			neap_keyed_carry_some(k, now);
		while (k->old && k->cursor);
	if (k->old) {   /* some have no place yet */
		neap_keys_close(keys);
		return NEAP_EFULL;
	}
	struct neap_keys_stats stats;
	neap_keys_stats(k->keys, &stats);
	k->evicted += stats.evicted;
	k->was = k->like;
	k->like = fresh;
	k->old = k->keys;
	k->keys = keys;
	k->keep = keep;
	k->changed = now;
	k->cursor = 0;
	*neap_face_word(&fresh) = neap_gcra_carry(&k->shared.as.gcra, &fresh.as.gcra, keep, now);
	k->shared = fresh;
	neap_helds_carry(&k->held, &k->was.as.gcra, &k->like.as.gcra, keep, now);
	return NEAP_OK;
}

void neap_keyed_close(struct neap_keyed *k)
{
	if (!k)
		return;
	neap_keys_close(k->keys);
	neap_keys_close(k->old);
	neap_roster_free(&k->own);
	neap_helds_free(&k->held);
	free(k);
}

int neap_keyed_set(struct neap_keyed *k, uint64_t key, struct neap_limiter *limiter)
{
	uint32_t name = neap_roster_find(&k->own, k, key);
	if (!limiter) {
		if (name)
			neap_roster_remove(&k->own, name);
		return NEAP_OK;
	}
	if (!name) {
		if (neap_roster_reserve(&k->own, k->own.count + 1))
			return NEAP_ENOMEM;
		name = neap_roster_add(&k->own, k, key);
	}
	((struct own *)(void *)(k->own.record + name * k->own.size))->limiter = limiter;
	return NEAP_OK;
}

static void forget_word(struct neap_keyed *k, uint64_t key)
{
	if (k->keys)
		neap_keys_forget(k->keys, key);
	if (k->old)
		neap_keys_forget(k->old, key);
}

int neap_keyed_hold(struct neap_keyed *k, uint64_t key, int64_t tokens, neap_ns until, neap_ns now)
{
	struct neap_limiter *own = neap_keyed_own(k, key);
	if (own)
		return neap_limiter_hold(own, tokens, until, now);
	if (!k->keys || k->like.kind != NEAP_GCRA)
		return NEAP_ERANGE;
	neap_helds_release(&k->held, &k->like.as.gcra, now);
	struct neap_face f;
	struct neap_limiter l = *neap_keyed_face(&f, k, key, now, NEAP_LOOK);
	const struct neap_gcra was = l.as.gcra, *is = &l.as.gcra;
	neap_limiter_hold(&l, tokens, until, now);
	if (!is->held && !was.held && is->tat == was.tat)
		return NEAP_OK;
	struct neap_held *h = neap_helds_find(&k->held, k, key);
	if (!h) {
		if (k->held.record.count >= k->count_max)
			return NEAP_EFULL;
		h = neap_helds_add(&k->held, k, key);
		if (!h)
			return NEAP_ENOMEM;
		forget_word(k, key);
	}
	neap_held_note(h, is, now);
	return NEAP_OK;
}

int neap_keyed_look(struct neap_keyed *k, uint64_t key, neap_ns now, struct neap_limiter *out)
{
	struct neap_face f;
	const struct neap_limiter *l = neap_keyed_face(&f, k, key, now, NEAP_LOOK);
	if (l == &f.limiter && f.room_at)
		return NEAP_EFULL;
	*out = *l;
	out->shared = 0;   /* the copy is nobody else's */
	return NEAP_OK;
}

int64_t neap_keyed_count(struct neap_keyed *k, neap_ns now)
{
	int64_t count = k->own.count;
	if (k->slot)
		return count + neap_stripes_count(k->slot, k->idle_ns, now);
	if (k->keys) {
		neap_keys_turn_to(k->keys, now);
		if (k->held.record.count)
			count += neap_helds_count(&k->held, &k->like.as.gcra, now);
	}
	if (k->old)
		count += count_old(k, now);
	return k->keys ? count + neap_keys_count(k->keys, neap_word_clock(&k->like, now)) : count;
}

void neap_keyed_forget(struct neap_keyed *k, uint64_t key)
{
	if (k->slot)
		neap_stripes_forget(k->slot, key);
	struct neap_held *h = neap_helds_find(&k->held, k, key);
	if (h)
		neap_helds_remove(&k->held, h);
	forget_word(k, key);
}

void neap_keyed_stats(const struct neap_keyed *k, struct neap_keyed_stats *out)
{
	struct neap_keys_stats keys = {0}, old = {0};
	if (k->keys)
		neap_keys_stats(k->keys, &keys);
	if (k->old)
		neap_keys_stats(k->old, &old);
	if (k->slot)
		neap_stripes_stats(k->slot, &keys);
	*out = (struct neap_keyed_stats){
		.entries = keys.entries + k->own.count + k->held.record.count,
		.bytes = keys.bytes + old.bytes + neap_roster_bytes(&k->own) +
			 neap_roster_bytes(&k->held.record) + (int64_t)sizeof *k,
		.refused = k->refused + keys.refused,
		.evicted = keys.evicted + k->evicted,
		.shared = k->shares,
	};
}

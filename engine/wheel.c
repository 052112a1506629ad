/* SPDX-License-Identifier: MIT */
/* wheel.c - a timing wheel whose pauses stay short.
 *
 * A heap costs log n cache misses per timer. The classic hierarchical wheel costs one or two, but
 * stands still when a coarse slot comes due: all its timers move at once, milliseconds at a
 * million timers, at the very moment when grants are due. Here each level spans sixteen slots of
 * the next, not one:
 *
 *     level 0  4096 slots of   1 us   |----|                         span    4 ms
 *     level 1  4096 slots of 262 us   |-----------------|            span  1.1 s
 *     level 2  4096 slots of  67 ms   |------------------------...   span  275 s
 *     ...      each slot 256 times wider; level 5 reaches the horizon
 *
 * So a coarse slot may be emptied long before it is due, a bounded number of timers at a time
 * (tidy), and it seldom has to be emptied at once (pull). Each slot remembers a lower bound of
 * its instants, which says when it must be; bitmaps find the first slot in use.
 *
 * Instants are exact, not rounded to slots: everything before 'frontier' has been moved into a
 * small binary heap, which puts the timers of one slot in the order (due, id). The structure
 * overlaps as in Kenneth's and Varghese & Lauck's wheels, scheme 7, with the levels widened.
 *
 * A list in no order of memory is slow to walk: where the next timer lies is known only when the
 * last one has come. So a slot above level 0 keeps its timers in four lists, by id, and is emptied
 * from all four in turn: memory fetches three while the fourth is moved.
 *
 * Links are ids + 1, so a zeroed timer is an unset one and unused memory is never touched.
 * 'prev' says where a timer is: 0 nowhere; FIRST | slot, first of its chain; HEAP | position, in
 * the heap; otherwise behind timer prev - 1.
 *
 * Invariants:
 *   a timer is in the heap exactly when due < frontier
 *   in level l, due >> width(l) lies in [frontier >> width(l), + 4096), so slots never mix rounds
 *   least(slot) <= due of every timer in it; a slot's bit is set exactly when it has timers
 */
#include "wheel.h"

#include <assert.h>
#include <stdlib.h>

enum {
	LEVELS = 6,
	SLOTS = 4096,
	FINEST = 10,       /* log2 of the ns a slot of level 0 spans */
	STEP = 8,          /* log2 of how much wider the next level's slots are */
	TIDY = 256,        /* timers that one pop may move ahead of need */
	WORDS = SLOTS / 64,
	CHAINS = 4,
};

static const uint32_t TAG = 0xC0000000, FIRST = 0x80000000, HEAP = 0xC0000000;

struct timer {
	neap_ns due;
	uint32_t next, prev;
};

struct slot {
	neap_ns least;
	uint32_t chain[CHAINS];   /* the first timer of each */
};

struct level {
	uint64_t summary;
	uint64_t used[WORDS];
	struct slot slot[SLOTS];
};

struct neap_wheel {
	neap_ns frontier;        /* a multiple of a slot of level 0 */
	struct timer *timer;
	uint32_t *heap;          /* ids, least first */
	uint32_t in_heap, count, capacity;
	struct level level[LEVELS];
};

static int width(int l) { return FINEST + STEP * l; }

/* ---- the heap ---- */

static int before(const struct neap_wheel *w, uint32_t a, uint32_t b)
{
	neap_ns x = w->timer[a].due, y = w->timer[b].due;
	return x < y || (x == y && a < b);
}

static void seat(struct neap_wheel *w, uint32_t position, uint32_t id)
{
	w->heap[position] = id;
	w->timer[id].prev = HEAP | position;
}

static void sift(struct neap_wheel *w, uint32_t position, uint32_t id)
{
	while (position && before(w, id, w->heap[(position - 1) / 2])) {
		seat(w, position, w->heap[(position - 1) / 2]);
		position = (position - 1) / 2;
	}
	for (;;) {
		uint32_t child = 2 * position + 1;
		if (child >= w->in_heap)
			break;
		if (child + 1 < w->in_heap && before(w, w->heap[child + 1], w->heap[child]))
			child++;
		if (!before(w, w->heap[child], id))
			break;
		seat(w, position, w->heap[child]);
		position = child;
	}
	seat(w, position, id);
}

static void heap_add(struct neap_wheel *w, uint32_t id)
{
	w->in_heap++;
	sift(w, w->in_heap - 1, id);
}

static void heap_remove(struct neap_wheel *w, uint32_t position)
{
	uint32_t last = w->heap[--w->in_heap];
	if (position < w->in_heap)
		sift(w, position, last);
}

/* ---- the slots ---- */

/* Level 0 makes do with one: its slots have few timers. */
static uint32_t chain_of(int l, uint32_t id) { return l ? id % CHAINS : 0; }

static void link_in(struct neap_wheel *w, int l, uint32_t id, neap_ns due)
{
	struct level *level = &w->level[l];
	uint32_t s = (uint32_t)(due >> width(l)) & (SLOTS - 1);
	struct slot *slot = &level->slot[s];
	uint32_t *first = &slot->chain[chain_of(l, id)];
	if (*first) {
		w->timer[*first - 1].prev = id + 1;
	} else if (!(level->used[s / 64] >> s % 64 & 1)) {
		level->used[s / 64] |= UINT64_C(1) << s % 64;
		level->summary |= UINT64_C(1) << s / 64;
		slot->least = due;
	}
	if (due < slot->least)
		slot->least = due;
	w->timer[id] = (struct timer){due, *first, FIRST | (uint32_t)l * SLOTS | s};
	*first = id + 1;
}

static int is_empty(const struct slot *slot)
{
	uint32_t any = 0;
	for (int i = 0; i < CHAINS; i++)
		any |= slot->chain[i];
	return !any;
}

static void clear_bit(struct level *level, uint32_t s)
{
	level->used[s / 64] &= ~(UINT64_C(1) << s % 64);
	if (!level->used[s / 64])
		level->summary &= ~(UINT64_C(1) << s / 64);
}

static void unlink(struct neap_wheel *w, uint32_t id)
{
	struct timer *t = &w->timer[id];
	if ((t->prev & TAG) == FIRST) {
		uint32_t at = t->prev & ~TAG, s = at % SLOTS;
		struct level *level = &w->level[at / SLOTS];
		level->slot[s].chain[chain_of((int)(at / SLOTS), id)] = t->next;
		if (t->next)
			w->timer[t->next - 1].prev = t->prev;
		else if (is_empty(&level->slot[s]))
			clear_bit(level, s);
	} else {
		w->timer[t->prev - 1].next = t->next;
		if (t->next)
			w->timer[t->next - 1].prev = t->prev;
	}
}

/* Into the heap, or the finest level that reaches 'due'. */
static void place(struct neap_wheel *w, uint32_t id, neap_ns due)
{
	if (due < w->frontier) {
		w->timer[id].due = due;
		heap_add(w, id);
		return;
	}
	int log2 = 63 - __builtin_clzll((uint64_t)(due - w->frontier) | 1);
	int l = log2 < FINEST + 12 ? 0 : (log2 - FINEST - 12) / STEP + 1;
	if ((due >> width(l)) - (w->frontier >> width(l)) >= SLOTS)
		l++;
	link_in(w, l, id, due);
}

/* The first slot in use of level l, counted from the frontier round; -1 when there is none. */
static int first_slot(const struct neap_wheel *w, int l)
{
	const struct level *level = &w->level[l];
	if (!level->summary)
		return -1;
	uint32_t start = (uint32_t)(w->frontier >> width(l)) & (SLOTS - 1);
	uint64_t here = level->used[start / 64] >> start % 64;
	if (here)
		return (int)start + __builtin_ctzll(here);
	uint32_t word = start / 64 + 1;
	uint64_t later = word < 64 ? level->summary >> word : 0;
	word = later ? word + (uint32_t)__builtin_ctzll(later)
		     : (uint32_t)__builtin_ctzll(level->summary);
	return (int)(word * 64) + __builtin_ctzll(level->used[word]);
}

/* The lowest bound over all slots, and in *l its level, -1 when no slot is in use; 'first' gets the
 * first_slot of every level. */
static neap_ns earliest(const struct neap_wheel *w, int *l, int first[LEVELS])
{
	neap_ns least = neap_never;
	*l = -1;
	for (int i = 0; i < LEVELS; i++) {
		first[i] = first_slot(w, i);
		if (first[i] >= 0 && w->level[i].slot[first[i]].least < least) {
			least = w->level[i].slot[first[i]].least;
			*l = i;
		}
	}
	return least;
}

/* Move up to 'most' timers out of a slot to where they belong now, of all its chains in turn. */
static uint32_t spread(struct neap_wheel *w, int l, int s, uint32_t most)
{
	struct slot *slot = &w->level[l].slot[s];
	uint32_t moved = 0, before;
	const int chains = l ? CHAINS : 1;
	do {
		before = moved;
		for (int i = 0; i < chains && moved < most; i++) {
			if (!slot->chain[i])
				continue;
			uint32_t id = slot->chain[i] - 1, next = w->timer[id].next;
			slot->chain[i] = next;
			if (next)
				__builtin_prefetch(&w->timer[next - 1]);
			place(w, id, w->timer[id].due);
			moved++;
		}
	} while (moved > before && moved < most);
	for (int i = 0; i < CHAINS; i++)
		if (slot->chain[i])
			w->timer[slot->chain[i] - 1].prev = FIRST | (uint32_t)(l * SLOTS + s);
	if (is_empty(slot))
		clear_bit(&w->level[l], (uint32_t)s);
	return moved;
}

/* Move the frontier behind the next slot of level 0 in use, if that one starts by 'now' and all
 * before it lies there too. 1 when it moved, and then the heap may have something. */
static int pull(struct neap_wheel *w, neap_ns now)
{
	int l, first[LEVELS];
	neap_ns least = earliest(w, &l, first);
	if (l < 0 || least > now)
		return 0;
	neap_ns start = least >> FINEST << FINEST;
	if (start > w->frontier)
		w->frontier = start;   /* nothing is due before 'least' */
	/* Coarser levels may still hold timers of this very microsecond. They come down first: once
	 * the frontier has passed the end of their slot, it would be the last of its round. */
	neap_ns end = start + (1 << FINEST);
	for (int i = 1; i < LEVELS && l == 0; i++)
		if (first[i] >= 0 && w->level[i].slot[first[i]].least < end)
			spread(w, i, first[i], UINT32_MAX);
	if (l == 0)
		w->frontier = end;
	spread(w, l, first[l], UINT32_MAX);
	return 1;
}

/* Empty coarse slots ahead of need. Half of what a level spans is near enough to begin. */
static void tidy(struct neap_wheel *w)
{
	uint32_t budget = TIDY;
	for (int l = 1; l < LEVELS && budget; l++) {
		int s = first_slot(w, l);
		if (s < 0)
			continue;
		int64_t round = w->frontier >> width(l);
		int64_t ahead = (s - round) & (SLOTS - 1);
		if (ahead < 8)
			budget -= spread(w, l, s, budget);
	}
}

/* ---- the verbs ---- */

struct neap_wheel *neap_wheel_open(uint32_t capacity, neap_ns now)
{
	assert(capacity >= 1 && capacity <= INT32_C(1) << 30 && now >= 0);
	struct neap_wheel *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	w->timer = calloc(capacity, sizeof *w->timer);
	w->heap = malloc(capacity * sizeof *w->heap);
	if (!w->timer || !w->heap) {
		neap_wheel_close(w);
		return NULL;
	}
	w->capacity = capacity;
	w->frontier = now >> FINEST << FINEST;
	return w;
}

void neap_wheel_close(struct neap_wheel *w)
{
	if (!w)
		return;
	free(w->heap);
	free(w->timer);
	free(w);
}

void neap_wheel_cancel(struct neap_wheel *w, uint32_t id)
{
	assert(id < w->capacity);
	struct timer *t = &w->timer[id];
	if (!t->prev)
		return;
	if ((t->prev & TAG) == HEAP)
		heap_remove(w, t->prev & ~TAG);
	else
		unlink(w, id);
	t->prev = 0;
	w->count--;
}

void neap_wheel_set(struct neap_wheel *w, uint32_t id, neap_ns due)
{
	assert(id < w->capacity && due >= 0);
	neap_wheel_cancel(w, id);
	place(w, id, due < neap_horizon ? due : neap_horizon);
	w->count++;
}

void neap_wheel_expect(const struct neap_wheel *w, uint32_t id)
{
	__builtin_prefetch(&w->timer[id], 1);
}

int64_t neap_wheel_pop_more(struct neap_wheel *w, neap_ns due)
{
	if (!w->in_heap || w->timer[w->heap[0]].due > due)
		return -1;
	uint32_t id = w->heap[0];
	heap_remove(w, 0);
	w->timer[id].prev = 0;
	w->count--;
	return id;
}

int64_t neap_wheel_pop(struct neap_wheel *w, neap_ns now, neap_ns *due)
{
	do {
		if (w->in_heap && w->timer[w->heap[0]].due <= now) {
			*due = w->timer[w->heap[0]].due;
			return neap_wheel_pop_more(w, now);
		}
	} while (w->frontier <= now && pull(w, now));
	if (w->frontier <= now >> FINEST << FINEST)
		w->frontier = now >> FINEST << FINEST;   /* pull found nothing due by now */
	tidy(w);
	return -1;
}

neap_ns neap_wheel_next(struct neap_wheel *w)
{
	int l = 0, first[LEVELS];
	while (!w->in_heap && l == 0) {
		neap_ns least = earliest(w, &l, first);
		if (l != 0)
			return l < 0 ? neap_never : least;
		pull(w, least);
	}
	return w->timer[w->heap[0]].due;
}

neap_ns neap_wheel_due(const struct neap_wheel *w, uint32_t id)
{
	return w->timer[id].prev ? w->timer[id].due : neap_never;
}

uint32_t neap_wheel_count(const struct neap_wheel *w) { return w->count; }

int64_t neap_wheel_bytes(const struct neap_wheel *w)
{
	return (int64_t)(sizeof *w + w->capacity * (sizeof *w->timer + sizeof *w->heap));
}

/* Timer n - 1, found in slot s of level l behind 'prev', has no business there. */
static int is_astray(const struct neap_wheel *w, int l, uint32_t s, uint32_t n, uint32_t prev)
{
	const struct timer *t = &w->timer[n - 1];
	int64_t round = (t->due >> width(l)) - (w->frontier >> width(l));
	return t->prev != prev || t->due < w->level[l].slot[s].least ||
	       ((uint32_t)(t->due >> width(l)) & (SLOTS - 1)) != s || t->due < w->frontier ||
	       round < 0 || round >= SLOTS;
}

int neap_wheel_check(const struct neap_wheel *w)
{
	uint32_t seen = 0;
	if (w->frontier & ((1 << FINEST) - 1))
		return NEAP_ECORRUPT;
	for (uint32_t i = 0; i < w->in_heap; i++, seen++) {
		uint32_t id = w->heap[i];
		if (w->timer[id].prev != (HEAP | i) || w->timer[id].due >= w->frontier ||
		    (i && before(w, id, w->heap[(i - 1) / 2])))
			return NEAP_ECORRUPT;
	}
	for (int l = 0; l < LEVELS; l++) {
		for (uint32_t s = 0; s < SLOTS; s++) {
			const struct slot *slot = &w->level[l].slot[s];
			int bit = w->level[l].used[s / 64] >> s % 64 & 1;
			int summary = w->level[l].summary >> s / 64 & 1;
			if (bit == is_empty(slot) || (bit && !summary))
				return NEAP_ECORRUPT;
			for (uint32_t c = 0; c < CHAINS; c++) {
				uint32_t prev = FIRST | ((uint32_t)l * SLOTS + s);
				for (uint32_t n = slot->chain[c]; n; n = w->timer[n - 1].next) {
					if (seen++ >= w->count || chain_of(l, n - 1) != c ||
					    is_astray(w, l, s, n, prev))
						return NEAP_ECORRUPT;
					prev = n;
				}
			}
		}
		for (uint32_t i = 0; i < WORDS; i++)
			if ((w->level[l].summary >> i & 1) != (w->level[l].used[i] != 0))
				return NEAP_ECORRUPT;
	}
	return seen == w->count ? NEAP_OK : NEAP_ECORRUPT;
}

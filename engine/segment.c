/* SPDX-License-Identifier: MIT */
/* segment.c - limiters by name, in memory that processes share.
 *
 *      of this process     of all
 *     | page, its end    | header, processes | limiter 0 | limiter 1 | ... | logs           |
 *      who I am           0                   slots_at    + stride          memory_at  bytes
 *
 * A limiter in there is an ordinary one, and its address an ordinary pointer for terms and lines: it
 * says in 'shared' how far it is from the beginning, so that whoever has it finds its guard before
 * it, the header, and what this process knows of itself.
 *
 * Limiters are never taken away: others may have their address. A name that nobody uses any more
 * costs its place, and bounds are told when the segment is made. Logs are as long as who asks for
 * them says; one that has to grow is given another place, twice as large as the one it had or
 * more, and what it leaves is lost: less than it has. No counter says which memory is in use: the
 * places that limiters have do, so nobody can die between the two.
 *
 * Adding is done by one at a time. A new limiter is written first and counted then; one that exists
 * becomes another under its guard.
 *
 * Generations say whose configuration holds. While a server is reloaded old and new processes live
 * side by side, and one of the old may come last: it must not put back what it was started with.
 */
#include "segment.h"

#include <assert.h>
#include <string.h>

static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* ---- making ---- */

static int64_t stride_of(int32_t processes_max)
{
	return round_up((int64_t)sizeof(struct neap_slot) + 8 * ((int64_t)processes_max + 1),
			NEAP_UNIT);
}

static int64_t slots_at(int32_t processes_max)
{
	return round_up((int64_t)sizeof(struct neap_header) +
			(int64_t)sizeof(struct neap_process) * ((int64_t)processes_max + 1), NEAP_UNIT);
}

int64_t neap_segment_measure(struct neap_segment_options *o)
{
	o->limiters_max = o->limiters_max ? o->limiters_max : 64;
	o->processes_max = o->processes_max ? o->processes_max : 64;
	o->log_bytes = o->log_bytes ? o->log_bytes : INT64_C(1) << 19;
	o->mode = o->mode ? o->mode : 0600;
	if (o->limiters_max < 1 || o->limiters_max > 1 << 16 || o->processes_max < 1 ||
	    o->processes_max > 1 << 10 || o->log_bytes < 1 || o->log_bytes > INT64_C(1) << 36 ||
	    o->mode < 0 || o->mode > 0777 || (o->mode & 0600) != 0600 || o->uid < -1 || o->gid < -1)
		return NEAP_ERANGE;
	return slots_at(o->processes_max) + o->limiters_max * stride_of(o->processes_max) +
	       round_up(o->log_bytes, NEAP_UNIT);
}

uint32_t neap_segment_made_of(void)
{
	const uint32_t sizes[] = {
		sizeof(struct neap_header), sizeof(struct neap_slot), sizeof(struct neap_limiter),
		sizeof(struct neap_gcra), sizeof(struct neap_semaphore), sizeof(struct neap_window),
		sizeof(struct neap_breaker), sizeof(struct neap_adaptive), sizeof(pthread_mutex_t),
		sizeof(struct neap_stamp), sizeof(void *), offsetof(struct neap_slot, limiter),
		sizeof(struct neap_stripe),
		0x01020304,
	};
	uint32_t hash = 2166136261u;   /* FNV-1a; bytes as they lie, so order of bytes counts, too */
	for (size_t i = 0; i < sizeof sizes; i++)
		hash = (hash ^ ((const unsigned char *)sizes)[i]) * 16777619u;
	return hash;
}

void neap_segment_format(struct neap_header *h, const struct neap_segment_options *o)
{
	memcpy(h->magic, "neapseg", 8);
	h->layout = NEAP_LAYOUT;
	h->made_of = neap_segment_made_of();
	h->limiters_max = o->limiters_max;
	h->processes_max = o->processes_max;
	h->slots_at = slots_at(o->processes_max);
	h->stride = stride_of(o->processes_max);
	h->memory_at = h->slots_at + h->limiters_max * h->stride;
	neap_mutex_init(&h->names);
	neap_mutex_init(&h->records);
}

/* ---- names ---- */

static int64_t count_of(const struct neap_header *h)
{
	return __atomic_load_n(&h->count, __ATOMIC_ACQUIRE);
}

static struct neap_slot *slot_of_name(const struct neap_header *h, const char *name)
{
	int64_t count = count_of(h);
	for (int32_t i = 0; i < count; i++)
		if (!strcmp(neap_slot_at(h, i)->name, name))
			return neap_slot_at(h, i);
	return NULL;
}

struct neap_limiter *neap_segment_find(const struct neap_segment *s, const char *name)
{
	struct neap_slot *slot = s->read_only ? NULL : slot_of_name(s->header, name);
	return slot && !slot->stripes.keys_max ? &slot->limiter : NULL;
}

static int64_t end_of(const struct neap_place *p) { return p->at + 2 * p->half_bytes; }

/* Two halves of so many bytes. 0: there is no room. */
static int find_place(const struct neap_header *h, int64_t half, struct neap_place *out)
{
	int64_t at = h->memory_at;
	for (int32_t i = 0; i < h->count; i++) {   /* of one half changed, it is the later place */
		const struct neap_slot *s = neap_slot_at(h, i);
		at = end_of(&s->place) > at ? end_of(&s->place) : at;
	}
	if (h->bytes - at < 2 * half)
		return 0;
	*out = (struct neap_place){at, half, 0};
	return 1;
}

/* The same of so many bytes or more, for a log. */
static int make_place(const struct neap_header *h, int64_t bytes, struct neap_place *out)
{
	int64_t half = NEAP_UNIT;
	while (half < bytes)
		half *= 2;
	return find_place(h, half, out);
}

/* With a table for so many keys, or none. */
static int make(struct neap_header *h, const char *name, const struct neap_limiter *like,
		int64_t keys_max, const struct neap_config *config, struct neap_slot **out)
{
	int64_t bytes = neap_limiter_log_bytes(like);
	struct neap_slot *s = neap_slot_at(h, (int32_t)h->count);
	struct neap_place place = {0};
	struct neap_stripes stripes = {0};
	if (h->count == h->limiters_max || (bytes && !make_place(h, bytes, &place)))
		return NEAP_EFULL;
	if (keys_max && !find_place(h, neap_stripes_bytes(&stripes, keys_max) / 2, &place))
		return NEAP_EFULL;
	memset(s, 0, (size_t)h->stride);
	neap_mutex_init(&s->mutex);
	s->place = place;
	s->stripes = stripes;
	s->config = *config;
	memcpy(s->name, name, strlen(name));
	s->limiter = *like;
	s->limiter.shared = (uint32_t)(((char *)s - (char *)h) / NEAP_UNIT);
	neap_limiter_share(&s->limiter);
	neap_guard_point(s);
	neap_stripes_make(s);
	__atomic_store_n(&h->count, h->count + 1, __ATOMIC_RELEASE);
	*out = s;
	return NEAP_OK;
}

/* Under its guard: another place if a log has to grow, else the half that is not in use. */
static int find_room(const struct neap_header *h, const struct neap_slot *s,
		     const struct neap_limiter *like, struct neap_place *out)
{
	int64_t bytes = neap_limiter_log_bytes(like);
	int64_t there = s->limiter.kind == NEAP_WINDOW
				? s->limiter.as.window.count * (int64_t)sizeof(struct neap_stamp) : 0;
	bytes = bytes > there ? bytes : there;
	*out = s->place;
	out->half = !s->place.half;
	return bytes <= s->place.half_bytes || make_place(h, bytes, out);
}

/* Make it what 'like' is. */
static int change(struct neap_header *h, struct neap_slot *s, const struct neap_limiter *like,
		  int keep, const struct neap_config *config, neap_ns now)
{
	struct neap_limiter *l = &s->limiter;
	struct neap_place place;
	if (l->kind == NEAP_GCRA) {
		struct neap_gcra_turn turn = {.like = &like->as.gcra, .now = now, .keep = keep};
		neap_guard_turn(l, &turn, config);
		return NEAP_OK;
	}
	if (!find_room(h, s, like, &place))
		return NEAP_EFULL;
	neap_guard_begin(l, NEAP_OF_CONFIG, 0, 0);
	if (neap_limiter_convert(l, like, (char *)h + place.at + (place.half ? place.half_bytes : 0),
				 now))
		s->place = place;
	s->config = *config;
	neap_guard_commit(l);
	return NEAP_OK;
}

static const struct neap_config *as_next(const struct neap_slot *s, struct neap_config *config,
					 int keep, neap_ns now)
{
	config->serial = s->config.serial + 1;
	config->changed = now;
	config->keep = keep;
	return config;
}

/* In force is what has the higher generation; told none, what was asked for last. */
static int agree(struct neap_header *h, struct neap_slot *s, const struct neap_limiter *like,
		 int keep, struct neap_config *config, neap_ns now)
{
	int status = NEAP_OK;
	neap_guard_enter(&s->limiter);
	int same = !memcmp(s->config.spec, config->spec, sizeof config->spec);
	int newer = config->generation > s->config.generation;
	if (!config->generation) {
		config->generation = s->config.generation + !same;
		newer = !same;
	}
	if (s->limiter.kind != like->kind)
		status = NEAP_ERANGE;
	else if (newer && same)
		s->config.generation = config->generation;
	else if (newer)
		status = change(h, s, like, keep, as_next(s, config, keep, now), now);
	else if (!same)
		status = 1;
	neap_guard_leave(&s->limiter);
	return status;
}

static int is_name(const char *name)
{
	return name[0] && memchr(name, 0, NEAP_NAME_BYTES) != NULL;
}

static void lock_names(struct neap_header *h)
{
	if (neap_mutex_lock(&h->names))   /* what was under way was not counted, or is undone */
		pthread_mutex_consistent(&h->names);
}

/* Is there room for so many keys where it has to have a table? NEAP_ERANGE: it has none, or one. */
static int has_table(const struct neap_slot *s, int64_t keys_max)
{
	if (!s->stripes.keys_max != !keys_max)
		return NEAP_ERANGE;
	return keys_max > s->stripes.keys_max ? NEAP_EFULL : NEAP_OK;
}

static int add(struct neap_segment *s, const char *name, const struct neap_limiter *like,
	       int64_t keys_max, int keep, int64_t generation, neap_ns now, struct neap_slot **out)
{
	struct neap_header *h = s->header;
	struct neap_config config = {.generation = generation, .serial = 1};
	assert(now >= 0 && now < neap_horizon);
	if (s->read_only || generation < 0 || keep < NEAP_KEEP_SPENT || keep > NEAP_KEEP_NOTHING ||
	    !is_name(name) || neap_limiter_spell(like, config.spec))
		return NEAP_ERANGE;
	lock_names(h);
	struct neap_slot *slot = slot_of_name(h, name);
	int status;
	if (slot) {
		status = has_table(slot, keys_max);
		neap_stripes_follow(slot);
		if (!status)
			status = agree(h, slot, like, keep, &config, now);
		if (status >= 0)
			*out = slot;
	} else {
		config.generation = generation ? generation : 1;
		status = make(h, name, like, keys_max, &config, out);
	}
	pthread_mutex_unlock(&h->names);
	return status;
}

int neap_segment_add(struct neap_segment *s, const char *name, const struct neap_limiter *like,
		     int keep, int64_t generation, neap_ns now, struct neap_limiter **out)
{
	struct neap_slot *slot;
	int status = add(s, name, like, 0, keep, generation, now, &slot);
	if (status >= 0)
		*out = &slot->limiter;
	return status;
}

/* Can words say how many permits of a key are out? */
static int is_countable(const struct neap_limiter *like)
{
	return like->kind != NEAP_SEMAPHORE || !(like->as.semaphore.limit >> NEAP_HOLDER_SHIFT);
}

int neap_segment_keyed(struct neap_segment *s, const char *name, const struct neap_limiter *like,
		       int64_t count_max, int full, int keep, int64_t generation, neap_ns now,
		       struct neap_keyed **out)
{
	struct neap_slot *slot;
	if ((like->kind != NEAP_GCRA && like->kind != NEAP_SEMAPHORE && like->kind != NEAP_PAUSE) ||
	    !is_countable(like) || count_max < 1 || count_max > 1 << 30 ||
	    full < NEAP_REFUSE || full > NEAP_SHARED)
		return NEAP_ERANGE;
	int status = add(s, name, like, count_max, keep, generation, now, &slot);
	if (status < 0)
		return status;
	struct neap_keyed *k = neap_keyed_over(slot, full);
	if (!k)
		return NEAP_ENOMEM;
	*out = k;
	return status;
}

int neap_segment_change(struct neap_slot *s, const struct neap_limiter *like, int keep,
			int64_t generation, neap_ns now)
{
	struct neap_header *h = neap_header_of(&s->limiter);
	struct neap_config config = {.generation = generation};
	if (!is_countable(like) || neap_limiter_spell(like, config.spec))
		return NEAP_ERANGE;
	lock_names(h);
	neap_stripes_follow(s);
	int status = agree(h, s, like, keep, &config, now);
	pthread_mutex_unlock(&h->names);
	return status;
}

void neap_segment_secret(const struct neap_segment *s, uint8_t *secret)
{
	memcpy(secret, s->header->secret, sizeof s->header->secret);
}

/* ---- looking from outside ---- */

/* Copy what it is at one moment, without writing. */
static void copy_out(const struct neap_header *h, const struct neap_slot *s,
		     struct neap_limiter *l, int64_t *generation)
{
	int64_t version;
	int before, left = 1 << 16;   /* then it was killed before it had begun, or is stopped */
	do {
		version = __atomic_load_n(&s->version, __ATOMIC_ACQUIRE);
		before = (version & 1) && s->armed;
		const struct neap_place *p = before ? &s->place_before : &s->place;
		*l = before ? s->before : s->limiter;
		*generation = (before && s->armed == NEAP_OF_CONFIG ? &s->config_before : &s->config)
				      ->generation;
		char *log = (char *)(uintptr_t)h + p->at + (p->half ? p->half_bytes : 0);
		if (l->kind == NEAP_WINDOW)
			l->as.window.log = (struct neap_stamp *)(void *)log;
		if (l->kind == NEAP_BREAKER)
			l->as.breaker.memory = (int64_t *)(void *)log;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (--left && (((version & 1) && !before) ||
			    __atomic_load_n(&s->version, __ATOMIC_RELAXED) != version));
	l->shared = 0;
	if (l->kind == NEAP_GCRA || l->kind == NEAP_SEMAPHORE)
		l->as.word &= INT64_MAX;
}

int neap_segment_next(const struct neap_segment *s, int32_t *cursor,
		      struct neap_segment_entry *out)
{
	if (*cursor < 0 || *cursor >= count_of(s->header))
		return 0;
	const struct neap_slot *slot = neap_slot_at(s->header, *cursor);
	memcpy(out->name, slot->name, sizeof out->name);
	copy_out(s->header, slot, &out->limiter, &out->generation);
	out->keys_max = slot->stripes.keys_max;
	out->holders = 0;
	for (int32_t i = 0; i <= s->header->processes_max; i++)
		out->holders += __atomic_load_n(&slot->holding[i], __ATOMIC_RELAXED) != 0;
	++*cursor;
	return 1;
}

void neap_segment_stats(const struct neap_segment *s, struct neap_segment_stats *out)
{
	const struct neap_header *h = s->header;
	int64_t end = h->memory_at;
	*out = (struct neap_segment_stats){
		.limiters = count_of(h), .limiters_max = h->limiters_max,
		.processes_max = h->processes_max, .bytes = h->bytes,
		.log_bytes = h->bytes - h->memory_at,
	};
	for (int32_t i = 0; i < out->limiters; i++)
		if (end_of(&neap_slot_at(h, i)->place) > end)
			end = end_of(&neap_slot_at(h, i)->place);
	for (int32_t i = 1; i <= h->processes_max; i++)
		out->processes += __atomic_load_n(&h->process[i].used, __ATOMIC_RELAXED) != 0;
	out->log_used = end - h->memory_at;
}

/* ---- proof ---- */

static int check_slot(const struct neap_header *h, const struct neap_slot *s)
{
	const struct neap_limiter *l = &s->limiter;
	int64_t sum = 0, most = 0;
	int64_t at = (const char *)s - (const char *)h;
	int bad = s->armed || s->version & 1 || at != (int64_t)l->shared * NEAP_UNIT;
	for (int32_t i = 0; i <= h->processes_max; i++) {
		bad |= s->holding[i] < 0;
		sum += s->holding[i];
	}
	if (l->kind == NEAP_SEMAPHORE)
		most = l->as.semaphore.in_use;
	else if (l->kind == NEAP_ADAPTIVE)
		most = l->as.adaptive.in_use;
	bad |= sum != most;
	if (s->place.half_bytes)
		bad |= s->place.at < h->memory_at || end_of(&s->place) > h->bytes;
	for (int32_t i = 0; i < h->count; i++) {
		const struct neap_slot *o = neap_slot_at(h, i);
		bad |= o != s && o->place.at < end_of(&s->place) && s->place.at < end_of(&o->place);
		bad |= o != s && !strcmp(o->name, s->name);
	}
	return bad ? NEAP_ECORRUPT : neap_limiter_check(l);
}

int neap_segment_check(struct neap_segment *s)
{
	struct neap_header *h = s->header;
	int status = NEAP_OK;
	if (s->read_only)
		return NEAP_ERANGE;
	lock_names(h);
	if (h->count < 0 || h->count > h->limiters_max)
		status = NEAP_ECORRUPT;
	for (int32_t i = 0; i < h->count && !status; i++) {
		neap_guard_enter(&neap_slot_at(h, i)->limiter);
		status = check_slot(h, neap_slot_at(h, i));
		neap_guard_leave(&neap_slot_at(h, i)->limiter);
		if (!status)
			status = neap_stripes_check(neap_slot_at(h, i));
	}
	pthread_mutex_unlock(&h->names);
	return status;
}

/* SPDX-License-Identifier: MIT */
/* segment.h - what lies where in a segment, and how it is kept whole. Private; segment.c has the
 * essay on the layout, guard.c the one on who may write when. */
#ifndef NEAP_SEGMENT_H
#define NEAP_SEGMENT_H

#include "neap.h"

#include <pthread.h>

enum {
	NEAP_LAYOUT = 3,          /* one more with each change of what follows, or of its meaning */
	NEAP_UNIT = 64,           /* bytes: everything lies at a multiple of it from the beginning */
	NEAP_SPEC_WORDS = 20,
	NEAP_STRIPE_LINES = 128, NEAP_STRIPE_WAYS = 4,
	NEAP_PROGRESS_BITS = 16,
	NEAP_STAMP_SHIFT = 12,
	NEAP_HOLDER_SHIFT = 48,   /* of permits: above are the holder, below how many */
};

/* Where a limiter has its log: two halves, of which one is in use. */
struct neap_place {
	int64_t at;               /* bytes from the segment's beginning */
	int64_t half_bytes;       /* 0: it needs none */
	int64_t half;             /* 0 or 1 */
};

/* What somebody asked for. */
struct neap_config {
	int64_t generation;
	int64_t serial;           /* of its changes, from 1 */
	neap_ns changed;          /* when the last one came, */
	int64_t keep;             /* and what of a rate it keeps: NEAP_KEEP_... */
	int64_t spec[NEAP_SPEC_WORDS];
};

/* A table of keys, at the slot's place. */
struct neap_stripes {
	int64_t keys_max;         /* 0: it has none, and is a limiter by itself */
	uint32_t count;
	uint32_t places;          /* entries to be used of each */
};

struct neap_pair {
	uint64_t key;             /* its hash */
	int64_t word;             /* 0: there is none */
};

/* A piece of it. stripes.c has the essay. */
struct neap_stripe {
	pthread_mutex_t mutex;
	int64_t progress;         /* serial of the limit, and on the way to the next one: the word that
				   * is carried over, from 1, and which of 'saved' it was */
	int64_t lost;             /* the latest word that was overwritten, or 0 */
	int64_t saved[2];
	struct neap_gcra limit[2];   /* by the serial's lowest bit */
	int64_t stamp;            /* the latest of 'seen' */
	uint8_t reach[NEAP_STRIPE_LINES];
	_Alignas(NEAP_UNIT) struct neap_pair pair[NEAP_STRIPE_LINES * NEAP_STRIPE_WAYS];
	int64_t seen[NEAP_STRIPE_LINES * NEAP_STRIPE_WAYS];   /* us and a count: no two alike */
};

/* A limiter and its guard. */
struct neap_slot {
	pthread_mutex_t mutex;
	int64_t version;          /* odd: a change is under way */
	int32_t armed;            /* 1: what it was before is below; 2: the configuration, too */
	int32_t process;          /* who changes it, */
	int64_t held;             /* and held so many permits before */
	uint32_t from, count;     /* entries of the log that are in the other half */
	struct neap_limiter before;
	struct neap_place place, place_before;
	struct neap_config config, config_before;
	struct neap_stripes stripes;
	char name[NEAP_NAME_BYTES];
	struct neap_limiter limiter;
	int64_t holding[];        /* permits by process; [0]: of those that found no record */
};

struct neap_process {
	int32_t used;             /* written last */
	int32_t pid;
	uint64_t started;         /* ticks since the machine started, as /proc/PID/stat says */
};

struct neap_header {
	char magic[8];
	uint32_t layout;
	uint32_t made_of;         /* a hash of the sizes of all structs in it */
	char boot[40];            /* the machine's boot_id */
	uint64_t pid_space;       /* inode of the namespace in which pids are meant */
	uint64_t id;              /* random */
	uint8_t secret[16];       /* random, for hashes of keys */
	int64_t bytes;            /* of all */
	int64_t slots_at, stride, memory_at;
	int32_t limiters_max, processes_max;
	pthread_mutex_t names;    /* held by who adds a limiter or changes what one is */
	pthread_mutex_t records;  /* held by who takes or frees a record of processes */
	int64_t count;            /* limiters there are; written last */
	struct neap_process process[];   /* [processes_max + 1], the first is nobody's */
};

/* What is of this process alone lies at the end of the page before the header. */
struct neap_here {
	uint64_t started;
	int32_t pid;
	int32_t process;          /* its record, or 0 */
	int64_t asked;            /* 1: 'process' is what there was for it */
};

struct neap_segment {
	struct neap_header *header;
	struct neap_segment *next;   /* of this process */
	size_t page;              /* before the header, mapped with it */
	int64_t device, inode;    /* which file it is */
	int32_t uses;             /* opens without a close */
	int32_t read_only;
};

static inline struct neap_slot *neap_slot_at(const struct neap_header *h, int32_t i)
{
	return (struct neap_slot *)(void *)((char *)(uintptr_t)h + h->slots_at + i * h->stride);
}

static inline struct neap_slot *neap_slot_of(const struct neap_limiter *l)
{
	return (struct neap_slot *)(void *)((char *)(uintptr_t)l - offsetof(struct neap_slot, limiter));
}

static inline struct neap_header *neap_header_of(const struct neap_limiter *l)
{
	return (struct neap_header *)(void *)((char *)neap_slot_of(l) - (int64_t)l->shared * NEAP_UNIT);
}

static inline int neap_process_is(const struct neap_process *record, const struct neap_process *p)
{
	return record->used && record->pid == p->pid && record->started == p->started;
}

static inline struct neap_here *neap_here_of(const struct neap_header *h)
{
	return (struct neap_here *)(uintptr_t)h - 1;
}

/* ---- segment.c ---- */

/* How many bytes; NEAP_ERANGE: a number out of range. 0 stands for what is usual. */
int64_t neap_segment_measure(struct neap_segment_options *o);
/* Make one of zeroes. */
void neap_segment_format(struct neap_header *h, const struct neap_segment_options *o);
uint32_t neap_segment_made_of(void);

/* ---- guard.c ---- */

void neap_mutex_init(pthread_mutex_t *m);
/* 1: its owner died. */
int neap_mutex_lock(pthread_mutex_t *m);

/* Nobody else is at the limiter, and what one who died left half done is undone. Again by who is
 * in already: one more _leave. */
void neap_guard_enter(const struct neap_limiter *l);
void neap_guard_leave(const struct neap_limiter *l);
/* Before and after a change by who has entered: who dies in between has changed nothing. 'from'
 * and 'count' are the entries of its log that it may write, counted from the oldest. */
enum { NEAP_OF_STATE = 1, NEAP_OF_CONFIG = 2 };
void neap_guard_begin(struct neap_limiter *l, int what, uint32_t from, uint32_t count);
void neap_guard_commit(struct neap_limiter *l);
/* Put another rate in the place of one that others go on to take from. By who has entered. */
struct neap_gcra_turn {
	const struct neap_gcra *like;   /* another rate, which keeps NEAP_KEEP_...; or NULL: */
	int64_t tokens;                 /* hold it */
	neap_ns until, now;
	int keep;
};
void neap_guard_turn(struct neap_limiter *l, const struct neap_gcra_turn *turn,
		     const struct neap_config *config);
/* Lead its pointer into its log, as this process sees that. By who has entered. */
void neap_guard_point(struct neap_slot *s);
/* Which guard comes first, when several are entered. */
int neap_guard_before(const struct neap_limiter *a, const struct neap_limiter *b);
/* Give back what a process held that is dead, and free its record. Answers how many permits. */
int64_t neap_guard_reap(struct neap_header *h, int32_t process, const struct neap_process *dead);
/* The own record, taken on first use; 0: there was none. */
int32_t neap_guard_record(const struct neap_limiter *l);
/* A record of processes, as it is now. */
struct neap_process neap_guard_process(struct neap_header *h, int32_t process);
/* Free a record, if it is still that of 'p'. */
void neap_guard_forget(struct neap_header *h, int32_t process, const struct neap_process *p);

/* The verbs of neap_limiter_..., for a limiter that is shared. */
neap_ns neap_guarded_when(const struct neap_limiter *l, int64_t cost, neap_ns now);
neap_ns neap_guarded_take(struct neap_limiter *l, int64_t cost, neap_ns now);
void neap_guarded_give(struct neap_limiter *l, int64_t cost, int outcome, neap_ns at, neap_ns now);
void neap_guarded_settle(struct neap_limiter *l, int64_t cost, int64_t used, neap_ns at,
			 neap_ns now);
int neap_guarded_hold(struct neap_limiter *l, int64_t tokens, neap_ns until, neap_ns now);

/* Wait until nobody changes it, or undo what one who died left: the version it has then. */
int64_t neap_guard_wait(const struct neap_limiter *l) __attribute__((cold, noinline));

/* Reading without entering: what was read between the two is what it was at one moment, unless it
 * has moved. */
static inline int64_t neap_guard_look(const struct neap_limiter *l)
{
	int64_t version = __atomic_load_n(&neap_slot_of(l)->version, __ATOMIC_ACQUIRE);
	return version & 1 ? neap_guard_wait(l) : version;
}

static inline int neap_guard_moved(const struct neap_limiter *l, int64_t version)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&neap_slot_of(l)->version, __ATOMIC_RELAXED) != version;
}

/* ---- stripes.c, muster.c: limits by key ---- */

/* Bytes of a table for so many keys, and what it consists of. */
int64_t neap_stripes_bytes(struct neap_stripes *t, int64_t keys_max);
/* Make them, of a slot with a place, a limit, and a configuration. */
void neap_stripes_make(const struct neap_slot *s);
/* Let no stripe be behind. */
void neap_stripes_follow(const struct neap_slot *s);
int64_t neap_stripes_count(const struct neap_slot *s, neap_ns idle_ns, neap_ns now);
void neap_stripes_stats(const struct neap_slot *s, struct neap_keys_stats *out);
void neap_stripes_forget(const struct neap_slot *s, uint64_t key);
int neap_stripes_check(const struct neap_slot *s);
/* Give back what a process holds that is dead; before its record is freed. */
int64_t neap_stripes_reap(struct neap_header *h, int32_t process, const struct neap_process *dead);
/* Does it hold anything? */
int neap_stripes_hold(const struct neap_header *h, int32_t process);
/* Where a key is. */
struct neap_stripe *neap_stripe_of(const struct neap_slot *s, uint64_t key);
void neap_stripe_hint(const struct neap_slot *s, uint64_t key);
/* Nobody else is at its keys, and its limit is the one that holds. Again by who is in already: one
 * more _leave. */
void neap_stripe_enter(const struct neap_slot *s, struct neap_stripe *t);
void neap_stripe_leave(struct neap_stripe *t);
/* Which comes first, when several are entered. */
int neap_stripe_before(const struct neap_slot *s, const struct neap_stripe *a,
		       const struct neap_slot *o, const struct neap_stripe *b);
/* The rest by who has entered. What its words are of: */
struct neap_gcra *neap_stripe_limit(struct neap_stripe *t);
/* Who comes, and what is as good as not there to him. */
struct neap_visit {
	neap_ns now;
	int64_t clock;            /* words up to this one; */
	int64_t idle_us;          /* and entries that were not seen for so long; 0: none */
	int32_t holder;           /* of permits: whose entry is meant */
	int32_t evicts;           /* 1: the least recently seen makes room for another key, */
	int32_t evicted;          /* and did, so many times */
};
void neap_visit_begin(struct neap_visit *v, neap_ns idle_ns, neap_ns now);
/* The key's word, or NULL; and then what it may have been, for who comes late, or 0. */
int64_t *neap_stripe_find(const struct neap_slot *s, struct neap_stripe *t, uint64_t key,
			  const struct neap_visit *v);
int64_t neap_stripe_lost(const struct neap_stripe *t, int64_t clock);
/* Of permits: how many are out of a key. */
int64_t neap_stripe_permits(const struct neap_slot *s, struct neap_stripe *t, uint64_t key);
/* The key of this word is seen. */
void neap_stripe_see(struct neap_stripe *t, const int64_t *word, neap_ns now);
/* Is there an entry for another key? 0: the first word to end is *least, and the first entry to be
 * forgotten was last seen at *seen_us. */
int neap_stripe_room(const struct neap_slot *s, const struct neap_stripe *t,
		     const struct neap_visit *v, int64_t *least, int64_t *seen_us);
/* Make the key, which is not there, one; its word is 0 until it is written. NULL: no room. */
int64_t *neap_stripe_place(const struct neap_slot *s, struct neap_stripe *t, uint64_t key,
			   struct neap_visit *v);

/* A slot with a table becomes what 'like' is, as neap_segment_add says; who changes the names. */
int neap_segment_change(struct neap_slot *s, const struct neap_limiter *like, int keep,
			int64_t generation, neap_ns now);

/* ---- attach.c ---- */

/* As neap_segment_reap, by the header of one that is mapped to be written. */
int64_t neap_header_reap(struct neap_header *h);

/* ---- keyed.c ---- */

/* One of this process, of a slot's table. NULL: no memory. */
struct neap_keyed *neap_keyed_over(struct neap_slot *s, int full);

/* ---- limiter.c: the verbs, for one that is not shared or that nobody else is at ---- */

neap_ns neap_bare_when(const struct neap_limiter *l, int64_t cost, neap_ns now);
neap_ns neap_bare_take(struct neap_limiter *l, int64_t cost, neap_ns now);
void neap_bare_give(struct neap_limiter *l, int64_t cost, int outcome, neap_ns at, neap_ns now);
void neap_bare_settle(struct neap_limiter *l, int64_t cost, int64_t used, neap_ns at, neap_ns now);

/* ---- convert.c ---- */

/* What a limiter is, without its state, in words that compare equal. NEAP_ERANGE: not one to share. */
int neap_limiter_spell(const struct neap_limiter *like, int64_t *spec);
/* Bytes of the log it has to have. */
int64_t neap_limiter_log_bytes(const struct neap_limiter *like);
/* Make 'l', of one kind with 'like' and not a gcra, what 'like' is, and keep its state. 'log' is
 * another than its own. 1: it uses 'log' now. */
int neap_limiter_convert(struct neap_limiter *l, const struct neap_limiter *like, void *log,
			 neap_ns now);
/* Its invariants: 0 or NEAP_ECORRUPT. */
int neap_limiter_check(const struct neap_limiter *l);

#endif

/* SPDX-License-Identifier: MIT */
/* room.h - the oracle of a waiting room: people in one list. room.c has the essay. */
#ifndef ROOM_H
#define ROOM_H

#include "neap.h"

__extension__ typedef __int128 room_sum;

enum { ROOM_PEOPLE = 64, ROOM_KEYS = 128 };

struct room_person {
	int64_t cost[NEAP_COSTS];
	const struct neap_all *all;
	uint64_t key, arrival;
	neap_ns since;
	int32_t priority;
	uint32_t name;
};

/* What one key of one priority has had; in the list by when it was seen last. */
struct room_key {
	uint64_t key;
	room_sum tag, start;   /* start: the priority's virtual time */
	int32_t priority;
	int mixed;
};

struct room {
	int capacity, overflow;
	neap_ns ageing_ns;
	struct room_person person[ROOM_PEOPLE];   /* by arrival */
	struct room_key key[ROOM_KEYS];           /* those idle longest first */
	int people, keys;
};

void room_join(struct room *r, const struct room_person *p);
/* 1: its turn has come; 0: it gives up. */
void room_go(struct room *r, uint32_t name, int served);
/* Names; 0 nobody. */
uint32_t room_first(const struct room *r);
uint32_t room_victim(const struct room *r);
int room_ahead(const struct room *r, uint32_t name, room_sum *queued);
int room_priorities(const struct room *r);

#endif

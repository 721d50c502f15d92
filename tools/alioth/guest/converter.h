/* SPDX-License-Identifier: GPL-2.0-only */
/* What the guest's module is made of: main.c, and one file that asks the VMM. */
#ifndef CONVERTER_H
#define CONVERTER_H

#undef pr_fmt
#define pr_fmt(fmt) "converter: " fmt

#include <linux/types.h>

/* The one file. */

extern const struct conversion {
	/* What can be converted, at least. */
	size_t granule;
	/* Memory is the same when it has become private, or shared, and has what it had. */
	bool private_keeps_shared;
	bool shared_keeps_private;
	/* Memory that can be converted, or NULL if all can. */
	void *(*memory)(size_t bytes);
	/* More of bad_requests(), when all else is done; or NULL. */
	void (*last_requests)(void *at);
} conversion;

int converter_open(void);
void converter_close(void);
long convert_range(u64 gpa, u64 npages, bool private);
/* Asks for what cannot be had. The disk reaches the shared page at @at before and after it. */
void bad_requests(void *at);

/* main.c */

long convert(void *at, size_t bytes, bool private);
/* Reads the disk into shared memory; how many bytes are not there: all, if the disk says so. */
u64 read_wrong(void *at, size_t bytes, u64 offset);
/* Whether no DMA reaches memory that is private. */
bool dma_blocked(void *at, size_t bytes);
void result(bool pass, const char *name);

#endif

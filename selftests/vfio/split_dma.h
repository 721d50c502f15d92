/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Live DMA while IOMMU mappings are split and joined: shared by the test and the
 * demo.
 *
 * split_dma.c        one thread keeps a device copying without pause, every
 *                    copied byte is checked; stray DMA
 * split_dma_map.c    memory and device; map, unmap, split and join
 * split_dma_watch.c  what the kernel says: DMA fault reports, IOMMU page tables
 *
 * Offsets (off, len) are relative to a window. All windows map the same memory
 * at consecutive IOVAs, so that one can be rebuilt while the device is busy in
 * another.
 */
#ifndef SELFTESTS_VFIO_SPLIT_DMA_H
#define SELFTESTS_VFIO_SPLIT_DMA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include <linux/types.h>

#include <libvfio.h>

#define SPLIT_DMA_WINDOWS 2
#define SPLIT_DMA_HOLES 4

/* Fault reports ------------------------------------------------------------ */

enum fault_access {
	FAULT_UNKNOWN,
	FAULT_READ,
	FAULT_WRITE,
};

struct fault_report {
	bool has_iova;		/* some hardware models report no address */
	u64 iova;
	enum fault_access access;
	char text[192];		/* the line itself */
};

/*
 * The kernel rate-limits fault reports to ten in five seconds, and one fault
 * counts up to three times. Faults made on purpose wait in fault_log_pace():
 * there is always room left to print one that nobody expects.
 */
#define FAULT_BURST 2
#define FAULT_INTERVAL_NS 5500000000ULL

struct fault_log {
	int fd;
	const char *bdf;
	u64 reports;
	u64 suppressed;		/* faults the kernel saw but did not print */
	u64 inherited;		/* ... before this log was opened */
	/*
	 * QEMU's AMD, RISC-V and Arm IOMMUs log each fault a hundred times: what
	 * is not printed says nothing there, wrong bytes still do.
	 */
	bool bursts;
	u64 repeated;
	u64 foreign;		/* reports about other devices */
	u64 lost;		/* log records overwritten before we read them */
	u64 recent[FAULT_BURST];
	u32 next;
};

void fault_log_open(struct fault_log *log, const char *bdf);
void fault_log_close(struct fault_log *log);
/* Next report about our device. False if there is none now. */
bool fault_log_next(struct fault_log *log, struct fault_report *report);
/* Would one more deliberate fault still be printed? _pace() waits until so. */
bool fault_log_ready(struct fault_log *log);
void fault_log_pace(struct fault_log *log);

/* IOMMU page tables -------------------------------------------------------- */

struct leaf {
	u64 iova;
	u64 size;
	u64 oa;
	u64 attr;		/* all other bits, as the format has them, no A/D */
};

struct ptable {
	struct leaf *leaf;	/* in order of iova */
	u32 nr;
	u32 max;
	u64 page_sizes;		/* that leaves may have, as a mask */
	u32 tables;		/* of all of the page table, the top one included */
};

/*
 * Read the leaves that translate [iova, iova + size) in the only HWPT of the
 * IOAS. Returns NULL or the reason why this kernel does not show them.
 */
const char *ptable_read(struct ptable *pt, struct iommu *iommu, u64 iova, u64 size);
void ptable_free(struct ptable *pt);
u32 ptable_count(const struct ptable *pt, u64 leaf_size);
/* The tables below the top that these leaves need. */
u32 ptable_needs(const struct ptable *pt);
/* What @before becomes when cut at two edges with the fewest leaves possible. */
void ptable_cut(const struct ptable *before, u64 start, u64 end, struct ptable *out);
/* What @before becomes without [start, end); no leaf may cross an edge. */
void ptable_punch(const struct ptable *before, u64 start, u64 end, struct ptable *out);
/* Prints the first difference. */
bool ptable_equal(const struct ptable *want, const struct ptable *have);
/*
 * Does @pt translate [iova, iova + size), except [start, end), to the same
 * output addresses and attributes as @base?
 */
bool ptable_same_translation(const struct ptable *base, const struct ptable *pt,
			     u64 iova, u64 size, u64 start, u64 end);
/*
 * What the kernel has for all of the IOAS: mappings, pinned pages, leaves of each
 * size and tables, as text. Returns NULL or why it does not tell.
 */
const char *ioas_summary(struct iommu *iommu, char **text);
const char *leaf_size_name(u64 size);
/* "511 x 2M + 512 x 4K" */
const char *ptable_summary(const struct ptable *pt, char *buf, size_t len);

/* DMA ---------------------------------------------------------------------- */

/* Memory, by the level at which page tables of the CPU map it. */
enum backing {
	BACKING_PAGES,		/* small pages */
	BACKING_PMD,		/* huge pages: 2M with pages of 4K, 512M with 64K */
	BACKING_PUD,		/* huge pages: 1G with pages of 4K */
	BACKING_LARGEST,	/* the second or the third */
};

enum dma_aim {
	AIM_ANYWHERE,		/* random places in the window */
	AIM_EDGES,		/* both sides of both edges, inside, across */
	AIM_OUTSIDE,		/* up to both edges, never inside */
};

struct dma_probe {
	u32 window;
	u64 src;
	u64 dst;
	u64 size;
	bool write;
	bool passed;		/* data came through */
};

struct split_dma {
	struct iommu *iommu;
	struct vfio_pci_device *device;
	struct iova_allocator *iova_allocator;
	struct fault_log faults;
	struct fault_report last_fault;	/* of stray DMA */

	void *mem;
	int memfd;
	u64 size;		/* of one window */
	u64 page;		/* what is cut is a multiple of it */
	u64 block;		/* a large leaf; 512 pages where none is that small */
	u64 backing;		/* page size of the memory */
	iova_t iova[SPLIT_DMA_WINDOWS];

	pthread_t thread;
	bool running;
	pthread_mutex_t lock;	/* protects the plan */
	u32 window;
	u64 off;
	u64 len;
	enum dma_aim aim;
	u64 hole_off[SPLIT_DMA_HOLES];	/* never touched, whatever the aim */
	u64 hole_len[SPLIT_DMA_HOLES];
	u32 holes;
	u64 gen;
	bool stop;
	struct dma_probe *probe;
	u64 rng;

	atomic_ulong seen_gen;	/* a copy under this plan has begun */
	atomic_ulong done;	/* copies finished under the current plan */
	atomic_ulong splitting;	/* odd while the ioctl runs, also for a join */

	atomic_ulong copies;
	atomic_ulong bytes;	/* copied and checked */
	atomic_ulong failed;	/* copies the device did not finish */
	atomic_ulong mismatched;	/* copies with a wrong byte */
	atomic_ulong overlapped;	/* copies during which a split or join ran */
	atomic_ulong longest_ns;	/* slowest copy */
	atomic_ulong recoveries;
	u64 splits;
	u64 split_ns;
	u64 split_ns_max;
	u64 joins;
	u64 join_ns;
	u64 join_ns_max;
};

u64 now_ns(void);
u64 split_dma_random(u64 *state);

/*
 * Memory, a device on it and the windows mapped, by the page table that iommufd
 * chooses or one that may be a nest parent. Returns NULL or the reason why it
 * cannot be had.
 */
const char *split_dma_init(struct split_dma *d, const char *bdf,
			   enum backing backing, bool nest_parent, u64 seed);
void split_dma_cleanup(struct split_dma *d);
/* Does IOMMU_GET_HW_INFO promise splits that DMA does not notice? */
bool split_dma_capable(struct split_dma *d);

void split_dma_start(struct split_dma *d);
void split_dma_stop(struct split_dma *d);

/* Direct the running copies. On return none under the old aim is left. */
void split_dma_aim(struct split_dma *d, u32 window, enum dma_aim aim, u64 off,
		   u64 len);
/* Keep off a hole from the next split_dma_aim() on, in every window. */
void split_dma_avoid(struct split_dma *d, u64 off, u64 len);
/* A hole is mapped again: no longer keep off it from the next aim on. */
void split_dma_permit(struct split_dma *d, u32 hole);
/* Wait until every aimed place was read once and written once. */
void split_dma_lap(struct split_dma *d);

/* -errno or 0 */
int split_dma_map(struct split_dma *d, u32 window, u64 off, u64 len);
/* Map what the other window has there, as a part of the same mapping. */
int split_dma_copy(struct split_dma *d, u32 window, u64 off, u64 len);
int split_dma_unmap(struct split_dma *d, u32 window, u64 off, u64 len,
		    u64 *unmapped);
int split_dma_split(struct split_dma *d, u32 window, u64 off, u64 len, u64 *ns);
/* Split and unmap in one call; counts as a split. */
int split_dma_carve(struct split_dma *d, u32 window, u64 off, u64 len, u64 *ns);
/* @flags: 0 or IOMMU_IOAS_JOIN_FILL */
int split_dma_join(struct split_dma *d, u32 flags, u32 window, u64 off, u64 len);

/*
 * Stray DMA: the device reads or writes [off, off + size) of a window, which is
 * not mapped. Returns NULL if it was blocked and reported with an address in
 * there, else what went wrong.
 */
const char *split_dma_stray(struct split_dma *d, u32 window, u64 off, u64 size,
			    bool write);
/* Faults that no stray DMA explains, printed and counted. */
u64 split_dma_unexpected_faults(struct split_dma *d);

static inline void *split_dma_vaddr(struct split_dma *d, u64 off)
{
	return (char *)d->mem + off;
}

#endif /* SELFTESTS_VFIO_SPLIT_DMA_H */

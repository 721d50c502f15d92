// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the mappings of an IOAS have become, in debugfs:
 *
 *   iommufd/PID-N/ioas-ID/summary  how many mappings, pinned pages, leaves of
 *                                  each size, and tables
 *   iommufd/PID-N/ioas-ID/leaves   each leaf, if CONFIG_IOMMU_DEBUGFS agrees to
 *                                  show physical addresses
 *
 * PID opened /dev/iommu, and N tells its files apart: see fdinfo of the file.
 *
 * A table can have billions of entries, so the locks are only held for a chunk
 * of it. Everything belongs to its first IOVA, each of which is looked at once:
 * what changes meanwhile is seen either before or after the change. Nothing is
 * referenced between two chunks, or reading the file would make IOMMU_DESTROY
 * fail.
 *
 * A chunk must not meet a change. Under iova_rwsem nobody maps or unmaps, but
 * for two: areas without pages are being filled or emptied, they are left out.
 * And the exporter of a dma-buf may revoke it, which the mutex of the pages
 * keeps away. Either frees only tables that serve nothing else.
 */
#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/generic_pt/iommu.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "double_span.h"
#include "io_pagetable.h"
#include "iommufd_private.h"

/* What is looked at under the locks: at most some 100,000 entries */
#define CHUNK_TABLES 128
#define CHUNK_AREAS 1024
/* Areas that are in no domain have to be looked for in the pages they share */
#define CHUNK_JIFFIES (HZ / 100)

static struct dentry *iommufd_debugfs_root;

/* Where a walk through all HWPTs of an IOAS is */
struct hwpt_cursor {
	u32 id;
	unsigned long iova;
	/* To notice that @id is another one by now, never followed */
	struct iommu_domain *domain;
	unsigned long page_sizes;
};

enum chunk {
	CHUNK_MORE,		/* of this HWPT */
	CHUNK_LAST,		/* of this HWPT */
	CHUNK_UNKNOWN,		/* this HWPT cannot be walked */
	CHUNK_NO_HWPT,		/* they are all through */
	CHUNK_SIGNAL,		/* while it waited for a lock */
};

/* Between two chunks. The IOAS waits for its readers before it is destroyed. */
static int pause_reading(struct iommufd_ioas *ioas)
{
	if (READ_ONCE(ioas->debugfs_closing))
		return -ENODEV;
	if (fatal_signal_pending(current))
		return -EINTR;
	cond_resched();
	return 0;
}

/* The one with the lowest ID from @id on */
static struct iommufd_hwpt_paging *next_hwpt(struct iommufd_ioas *ioas, u32 id)
{
	struct iommufd_hwpt_paging *hwpt, *next = NULL;

	lockdep_assert_held(&ioas->mutex);
	list_for_each_entry(hwpt, &ioas->hwpt_list, hwpt_item) {
		if (hwpt->common.obj.id >= id &&
		    (!next || hwpt->common.obj.id < next->common.obj.id))
			next = hwpt;
	}
	return next;
}

/*
 * Walk from @iova on, as far as nothing but @walk sets an end to it. If that was
 * not all, @iova is where to go on.
 */
static enum chunk walk_some(struct io_pagetable *iopt, struct pt_iommu *pt,
			    unsigned long *iova, struct pt_iommu_walk *walk)
{
	unsigned long last = ULONG_MAX;
	struct iopt_area *other = NULL;
	unsigned int areas = 0;
	struct iopt_area *area;
	bool more = false;

	ACQUIRE(rwsem_read_intr, lock)(&iopt->iova_rwsem);
	if (ACQUIRE_ERR(rwsem_read_intr, &lock))
		return CHUNK_SIGNAL;

	for (area = iopt_area_iter_first(iopt, *iova, ULONG_MAX); area;
	     area = iopt_area_iter_next(area, *iova, ULONG_MAX)) {
		if (!area->pages || iopt_is_dmabuf(area->pages)) {
			if (iopt_area_iova(area) > *iova) {
				last = iopt_area_iova(area) - 1;
			} else {
				last = iopt_area_last_iova(area);
				other = area;
			}
			break;
		}
		if (++areas == CHUNK_AREAS) {
			last = iopt_area_last_iova(area);
			break;
		}
	}

	if (!other) {
		more = pt->ops->walk_range(pt, *iova, last, walk);
	} else if (other->pages) {
		ACQUIRE(mutex_kill, pages_lock)(&other->pages->mutex);
		if (ACQUIRE_ERR(mutex_kill, &pages_lock))
			return CHUNK_SIGNAL;
		more = pt->ops->walk_range(pt, *iova, last, walk);
	}
	*iova = more ? walk->next : last + 1;
	return more || last != ULONG_MAX ? CHUNK_MORE : CHUNK_LAST;
}

/* One chunk, from @cursor on. Counts begin at zero with each HWPT. */
static enum chunk walk_chunk(struct iommufd_ioas *ioas,
			     struct hwpt_cursor *cursor,
			     struct pt_iommu_walk *walk)
{
	struct iommufd_hwpt_paging *hwpt;
	struct iommu_domain *domain;
	struct pt_iommu *pt;

	/* While a HWPT is on the list its domain is alive and filled */
	ACQUIRE(mutex_intr, lock)(&ioas->mutex);
	if (ACQUIRE_ERR(mutex_intr, &lock))
		return CHUNK_SIGNAL;
	hwpt = next_hwpt(ioas, cursor->id);
	if (!hwpt)
		return CHUNK_NO_HWPT;

	domain = hwpt->common.domain;
	if (cursor->id != hwpt->common.obj.id || cursor->domain != domain) {
		cursor->id = hwpt->common.obj.id;
		cursor->domain = domain;
		cursor->page_sizes = domain->pgsize_bitmap;
		cursor->iova = 0;
		walk->tables = 0;
		memset(walk->leaves, 0, sizeof(walk->leaves));
	}

	pt = iommupt_from_domain(domain);
	if (!pt || !pt->ops->walk_range)
		return CHUNK_UNKNOWN;
	return walk_some(&ioas->iopt, pt, &cursor->iova, walk);
}

static void next_cursor(struct hwpt_cursor *cursor)
{
	*cursor = (struct hwpt_cursor){ .id = cursor->id + 1 };
}

struct area_counts {
	unsigned long mappings;
	unsigned long changing;
	u64 bytes;
	u64 pinned;
};

/* Adds the pages of the area that are pinned, for domains or for accesses */
static int count_pinned(struct iopt_area *area, u64 *pinned)
{
	struct interval_tree_double_span_iter span;
	struct iopt_pages *pages = area->pages;

	/* The exporter pins them, or does not */
	if (iopt_is_dmabuf(pages))
		return 0;

	/* Everything that is in a domain, however many areas share it */
	if (area->storage_domain) {
		*pinned += iopt_area_last_index(area) - iopt_area_index(area) +
			   1;
		return 0;
	}

	/* Whoever fills a domain holds it, for as long as user memory takes */
	ACQUIRE(mutex_kill, lock)(&pages->mutex);
	if (ACQUIRE_ERR(mutex_kill, &lock))
		return -EINTR;
	interval_tree_for_each_double_span(&span, &pages->access_itree,
					   &pages->domains_itree,
					   iopt_area_index(area),
					   iopt_area_last_index(area)) {
		if (span.is_used)
			*pinned += span.last_used - span.start_used + 1;
	}
	return 0;
}

/* Returns 0 if that was all, 1 if @iova is where to go on, or an error. */
static int count_areas(struct io_pagetable *iopt, unsigned long *iova,
		       struct area_counts *counts)
{
	unsigned long end = jiffies + CHUNK_JIFFIES;
	unsigned int areas = 0;
	struct iopt_area *area;

	ACQUIRE(rwsem_read_intr, lock)(&iopt->iova_rwsem);
	if (ACQUIRE_ERR(rwsem_read_intr, &lock))
		return -EINTR;
	for (area = iopt_area_iter_first(iopt, *iova, ULONG_MAX); area;
	     area = iopt_area_iter_next(area, *iova, ULONG_MAX)) {
		if (iopt_area_iova(area) < *iova)
			continue;
		if (areas == CHUNK_AREAS ||
		    (areas && time_after(jiffies, end))) {
			*iova = iopt_area_iova(area);
			return 1;
		}
		areas++;
		if (!area->pages) {
			counts->changing++;
			continue;
		}
		counts->mappings++;
		counts->bytes += iopt_area_length(area);
		if (count_pinned(area, &counts->pinned))
			return -EINTR;
	}
	return 0;
}

static void show_counts(struct seq_file *s, const struct hwpt_cursor *cursor,
			const struct pt_iommu_walk *walk)
{
	static const char units[] = "BKMGTPE";
	unsigned int i;

	seq_printf(s, "hwpt %u page_sizes %#lx", cursor->id,
		   cursor->page_sizes);
	/* The top one is not among those that were counted */
	seq_printf(s, " tables %llu table_bytes %llu", walk->tables + 1,
		   (walk->tables + 1) * walk->table_size);
	for (i = 0; i != ARRAY_SIZE(walk->leaves); i++) {
		if (walk->leaves[i])
			seq_printf(s, " %u%c %llu", 1U << (i % 10),
				   units[i / 10], walk->leaves[i]);
	}
	seq_putc(s, '\n');
}

static int summary_show(struct seq_file *s, void *unused)
{
	struct pt_iommu_walk *walk __free(kfree) =
		kzalloc_obj(*walk, GFP_KERNEL);
	struct iommufd_ioas *ioas = s->private;
	struct hwpt_cursor cursor = {};
	struct area_counts counts = {};
	unsigned long iova = 0;
	enum chunk chunk;
	int rc;

	if (!walk)
		return -ENOMEM;

	while ((rc = count_areas(&ioas->iopt, &iova, &counts))) {
		if (rc > 0)
			rc = pause_reading(ioas);
		if (rc)
			return rc;
	}
	seq_printf(s, "mappings %lu\nmapped_bytes %llu\nchanging %lu\npinned_pages %llu\n",
		   counts.mappings, counts.bytes, counts.changing,
		   counts.pinned);

	walk->max_tables = CHUNK_TABLES;
	do {
		chunk = walk_chunk(ioas, &cursor, walk);
		if (chunk == CHUNK_UNKNOWN)
			seq_printf(s, "hwpt %u unknown\n", cursor.id);
		if (chunk == CHUNK_LAST)
			show_counts(s, &cursor, walk);
		if (chunk == CHUNK_UNKNOWN || chunk == CHUNK_LAST)
			next_cursor(&cursor);
		rc = chunk == CHUNK_SIGNAL ? -EINTR : pause_reading(ioas);
	} while (!rc && chunk != CHUNK_NO_HWPT);
	return rc;
}
DEFINE_SHOW_ATTRIBUTE(summary);

/*
 * Each record of the seq_file is a chunk, of one table. It may be shown again,
 * with a larger buffer, before the file goes on to the next.
 */
struct leaves_iter {
	struct pt_iommu_walk walk;
	struct seq_file *s;
	struct iommufd_ioas *ioas;
	struct hwpt_cursor cursor;
	struct hwpt_cursor next;
	bool done;
};

static void show_leaf(struct pt_iommu_walk *walk,
		      const struct pt_iommu_leaf *leaf)
{
	struct leaves_iter *iter = container_of(walk, struct leaves_iter, walk);

	seq_printf(iter->s, "%u %#llx %#llx %#llx %#llx\n", iter->next.id,
		   (u64)leaf->iova, 1ULL << leaf->size_lg2, (u64)leaf->paddr,
		   leaf->attrs);
}

static void *leaves_start(struct seq_file *s, loff_t *pos)
{
	struct leaves_iter *iter = s->private;

	if (!*pos) {
		iter->cursor = (struct hwpt_cursor){};
		iter->done = false;
	}
	return iter->done ? NULL : iter;
}

static int leaves_show(struct seq_file *s, void *v)
{
	struct leaves_iter *iter = v;
	int rc;

	rc = pause_reading(iter->ioas);
	if (rc)
		return rc;

	if (!s->index)
		seq_puts(s, "# hwpt iova size oa attrs\n");
	iter->s = s;
	iter->next = iter->cursor;
	switch (walk_chunk(iter->ioas, &iter->next, &iter->walk)) {
	case CHUNK_MORE:
		break;
	case CHUNK_UNKNOWN:
		seq_printf(s, "# hwpt %u unknown\n", iter->next.id);
		fallthrough;
	case CHUNK_LAST:
		next_cursor(&iter->next);
		break;
	case CHUNK_NO_HWPT:
		iter->done = true;
		break;
	case CHUNK_SIGNAL:
		return -EINTR;
	}
	return 0;
}

static void *leaves_next(struct seq_file *s, void *v, loff_t *pos)
{
	struct leaves_iter *iter = v;

	++*pos;
	iter->cursor = iter->next;
	return iter->done ? NULL : iter;
}

static void leaves_stop(struct seq_file *s, void *v)
{
}

static const struct seq_operations leaves_seq_ops = {
	.start = leaves_start,
	.next = leaves_next,
	.stop = leaves_stop,
	.show = leaves_show,
};

static int leaves_open(struct inode *inode, struct file *file)
{
	struct leaves_iter *iter;

	iter = __seq_open_private(file, &leaves_seq_ops, sizeof(*iter));
	if (!iter)
		return -ENOMEM;
	iter->ioas = inode->i_private;
	iter->walk.leaf = show_leaf;
	iter->walk.max_tables = 1;
	return 0;
}

static const struct file_operations leaves_fops = {
	.owner = THIS_MODULE,
	.open = leaves_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = seq_release_private,
};

/*
 * Before anybody can destroy the IOAS. Nothing depends on its success. An ID is
 * free to be used again before the last IOAS that had it waits for its readers:
 * then the files of the next one come beside them.
 */
void iommufd_debugfs_add_ioas(struct iommufd_ctx *ictx,
			      struct iommufd_ioas *ioas)
{
	static atomic_t again = ATOMIC_INIT(0);
	struct dentry *other;
	char name[32];

	snprintf(name, sizeof(name), "ioas-%u", ioas->obj.id);
	other = debugfs_lookup(name, ictx->debugfs);
	if (other) {
		dput(other);
		snprintf(name, sizeof(name), "ioas-%u.%u", ioas->obj.id,
			 (unsigned int)atomic_inc_return(&again));
	}
	ioas->debugfs = debugfs_create_dir(name, ictx->debugfs);
	debugfs_create_file("summary", 0400, ioas->debugfs, ioas,
			    &summary_fops);
	if (IS_ENABLED(CONFIG_IOMMU_DEBUGFS))
		debugfs_create_file("leaves", 0400, ioas->debugfs, ioas,
				    &leaves_fops);
}

/* Waits for a reader to end its chunk and to copy what it has to user space */
void iommufd_debugfs_remove_ioas(struct iommufd_ioas *ioas)
{
	WRITE_ONCE(ioas->debugfs_closing, true);
	debugfs_remove(ioas->debugfs);
}

void iommufd_debugfs_open(struct iommufd_ctx *ictx)
{
	static atomic_t opened = ATOMIC_INIT(0);
	char name[32];

	ictx->debugfs_number = atomic_inc_return(&opened);
	snprintf(name, sizeof(name), "%d-%u", task_tgid_nr(current),
		 ictx->debugfs_number);
	ictx->debugfs = debugfs_create_dir(name, iommufd_debugfs_root);
}

void iommufd_debugfs_release(struct iommufd_ctx *ictx)
{
	debugfs_remove(ictx->debugfs);
}

/* Without the process ID, for readers in other PID namespaces */
void iommufd_debugfs_show_fdinfo(struct seq_file *s, struct file *filp)
{
	struct iommufd_ctx *ictx = filp->private_data;

	if (!IS_ERR_OR_NULL(ictx->debugfs))
		seq_printf(s, "iommufd-debugfs:\t%u\n", ictx->debugfs_number);
}

void __init iommufd_debugfs_init(void)
{
	iommufd_debugfs_root = debugfs_create_dir("iommufd", NULL);
}

void iommufd_debugfs_exit(void)
{
	debugfs_remove(iommufd_debugfs_root);
}

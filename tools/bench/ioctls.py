# SPDX-License-Identifier: GPL-2.0-only
"""What the guests of tools/bench/ioctls printed, as tables. DIR/MODE/stdout each:

cost, time            "ioctl: ROUND DOMAINS UNITS OPERATION", instructions and cycles
locks, flushes, sent  marks and events of the tracer, stamped with instructions
threads               "threads: ROUND THREADS IOASES HOLES NS"
"""

import re
import statistics
import sys

WAYS = ("split and unmap", "carve", "unmap alone")
EVENT = re.compile(r" (\d+): (\w+): (.*)$")
MARK = re.compile(r"ioctls: (\d+) (.+)")


def lines(where, mode):
    with open(f"{where}/{mode}/stdout", encoding="utf-8", errors="replace") as out:
        return [line.rstrip() for line in out]


def least(where, mode):
    """The least units, by (domains, operation)."""
    found = {}
    for line in lines(where, mode):
        if line.startswith("ioctl: "):
            _, turn, domains, units, operation = line.split(" ", 4)
            if turn != "0":
                key = int(domains), operation
                found[key] = min(found.get(key, float("inf")), int(units))
    return found


def calls(where, mode):
    """The events of each measured call, as (stamp, name, text), by (domains, operation). The last call of several counts."""
    found, events = {}, None
    for line in lines(where, mode):
        event = EVENT.search(line)
        if not event:
            continue
        stamp, name, text = int(event[1]), event[2], event[3]
        mark = MARK.search(text)
        if mark:
            events = found[int(mark[1]), mark[2]] = []
        elif text.startswith("ioctls: end"):
            events = None
        elif events is not None:
            events.append((stamp, name, text))
    return found


def pairs(events, begin, end):
    """Units from each begin to the end that follows it."""
    start = None
    for stamp, name, text in events:
        if name == begin:
            start = stamp
        elif name == end and start is not None:
            yield stamp - start
            start = None


def probe_cost(found, begin, end):
    """What two probes show of a place that takes next to nothing."""
    return min((units for events in found.values() for units in pairs(events, begin, end)), default=0)


def held(where):
    """How long iova_rwsem is held in each call, without what the probes take."""
    found = calls(where, "locks")
    cost = probe_cost(found, "unlock", "unlocked")
    return {key: [units - cost for units in pairs(events, "lock", "unlock")] for key, events in found.items()}


def flushing(where):
    """How long each call flushes, likewise."""
    found = calls(where, "flushes")
    cost = probe_cost(found, "empty", "emptied")
    return {key: sum(units - cost for units in pairs(events, "flush", "flushed")) for key, events in found.items()}


def sent(where):
    """How many flushes of the IOTLB and of device TLBs each call sends."""
    kinds = ("iotlb_inv", "dev_tlb_inv")
    return {key: [sum(f"{kind} " in text for _, _, text in events) for kind in kinds] for key, events in calls(where, "sent").items()}


def threads(where):
    """Holes a second, by (threads, IOASes): the median of the rounds."""
    found = {}
    for line in lines(where, "threads"):
        if line.startswith("threads: "):
            turn, number, ioases, holes, ns = map(int, line.split()[1:])
            if turn:
                found.setdefault((number, ioases), []).append(holes / ns * 1e9)
    return {key: statistics.median(rates) for key, rates in found.items()}


def read(where):
    """Everything, as one dict for bench.json."""
    count, time = least(where, "cost"), least(where, "time")
    locks, flushes, requests = held(where), flushing(where), sent(where)
    table = []
    for domains, operation in count:
        if not operation.startswith("carve "):
            continue
        row = {"hole": operation.removeprefix("carve "), "domains": domains}
        for way in WAYS:
            key = domains, f"{way} {row['hole']}"
            row[way] = {
                "instructions": count[key],
                "cycles": time[key],
                "held": locks[key],
                "flushing": flushes[key],
                "iotlb_flushes": requests[key][0],
                "device_tlb_flushes": requests[key][1],
            }
        for unit in ("instructions", "cycles"):
            for other, name in (("split and unmap", "over_split_unmap"), ("unmap alone", "over_unmap")):
                row[f"{unit}_{name}"] = round(row["carve"][unit] / row[other][unit], 3)
        table.append(row)
    rates = [{"threads": key[0], "ioases": key[1], "holes_per_second": round(rate)} for key, rate in threads(where).items()]
    return {"holes": table, "threads": rates}


def check(result):
    """Ends the run if a hole was not flushed as often as the documents say: in each domain once, and once by each of two calls."""
    for row in result["holes"]:
        for way, times, each in (("carve", 1, "one"), ("split and unmap", 2, "two")):
            for key, cache in (("iotlb_flushes", "the IOTLB"), ("device_tlb_flushes", "device TLBs")):
                found, want = row[way][key], times * row["domains"]
                if found != want:
                    sys.exit(f"error: {way} of {row['hole']}, {row['domains']} domains: {found} flushes of {cache}, and not {want}, {each} in each domain.")


def show(result):
    print(f"\n{'ioctls on VT-d: hole, domains':30}{'split+unmap':>12}{'one call':>10}{'unmap alone':>12}  one call over both (time), over unmap (time)")
    for row in result["holes"]:
        counts = "".join(f"{row[way]['instructions']:>{width},}" for way, width in zip(WAYS, (12, 10, 12)))
        ratios = [row[f"{unit}_{name}"] for name in ("over_split_unmap", "over_unmap") for unit in ("instructions", "cycles")]
        print("{:30}{}  {} ({}), {} ({})".format(f"{row['hole']}, {row['domains']}", counts, *ratios))
    print(f"\n{'iova_rwsem, instructions held (flushing in the call)':62}{'split+unmap':>20}{'one call':>20}{'unmap alone':>20}")
    for row in result["holes"]:
        cells = (f"{sum(row[way]['held']):,} ({row[way]['flushing']:,})" for way in WAYS)
        print(f"{row['hole'] + ', ' + str(row['domains']):62}" + "".join(f"{cell:>20}" for cell in cells))
    print(f"\n{'flushes: IOTLB + device TLB':62}{'split+unmap':>20}{'one call':>20}{'unmap alone':>20}")
    for row in result["holes"]:
        cells = (f"{row[way]['iotlb_flushes']} + {row[way]['device_tlb_flushes']}" for way in WAYS)
        print(f"{row['hole'] + ', ' + str(row['domains']):62}" + "".join(f"{cell:>20}" for cell in cells))
    print("\nholes of 4K carved and mapped again a second")
    for row in result["threads"]:
        print(f"{row['threads']} threads in {row['ioases']} IOAS: {row['holes_per_second']:,}")


if __name__ == "__main__":
    measured = read(sys.argv[1])
    show(measured)
    check(measured)

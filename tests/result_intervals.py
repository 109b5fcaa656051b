"""Which results may have no interval, and why; shared by tests of notebooks and of figures."""

from fnmatch import fnmatchcase

# Notebook to the names, with * for anything, of numbers that are no mean over queries.
EXCUSED = {
    "01_build_index": [
        "images_per_second", "milliseconds.*", "vectors_megabytes",  # times and sizes
        "finds_itself",  # a check of the index: anything but 1 is a fault
    ],
    "02_search_text_and_image": ["median_similarity.*"],  # medians over all pairs
    "05_compare_region_encodings": ["encodings.*.milliseconds"],
    "06_compare_methods": ["methods.*.seconds"],  # has its range
    "07_embedding_map": ["chance.*", "median_similarity.*"],  # computed; medians over all pairs
    "08_svm_probe": [
        "kernel_median.*",
        "hardest_class.*", "easiest_class.*",  # chosen as the extremes of all classes
        "test.*.weighted precision",  # the bootstrap's interval does not cover
    ],
    "09_label_by_neighbours": ["chance.*", "median_distance.*"],
    "10_composed_search": ["weights.*", "space.*.effective_rank"],  # settings; no mean
    "11_engines_and_scale": [
        "engines.*.milliseconds", "engines.*.build_seconds", "engines.*.times_faster_than_S3",
        "papers_way_ms.*", "throughput.*", "runtime.*", "runtime_search_by_scan_ms",
        "images_a_second",  # times
        "engines.*.chosen_at",  # what the setting was chosen by, and so biased
        "capacity.*",  # arithmetic
    ],
    "13_relevance_feedback": ["settings.*"],
    "19_match_several_objects": [
        "rol.alpha", "rol.beta", "rol.best_with_off", "rol_of_masks.beta",  # settings
        "rol.val_curves.*",  # what they were chosen by
    ],
}  # fmt: skip


def list_bare(results, prefix=""):
    """Yield the dotted name of each float, list of them or quantity that has no interval."""
    for key, value in results.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and "value" in value:
            lone = value.get("n") == 1  # of one query there is none
            if isinstance(value["value"], float) and not value.get("ci95") and not lone:
                yield name
        elif isinstance(value, dict):
            yield from list_bare(value, f"{name}.")
        elif any(isinstance(one, float) for one in (value if isinstance(value, list) else [value])):
            yield name


def list_unexcused(notebook, results):
    """Return the names of results that lack an interval and are not excused from it."""
    excused = EXCUSED.get(notebook, [])
    return [name for name in list_bare(results) if not any(fnmatchcase(name, e) for e in excused)]

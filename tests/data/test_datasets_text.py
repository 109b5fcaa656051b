"""Data sets of pictures with captions, each in the layout that it is published in."""

import csv
import json

import numpy as np
import pytest

from regionlab.data.captions import (
    IMAGE_FOLDERS,
    load_fashion200k,
    load_flickr30k,
)
from regionlab.data.coco import load_coco
from regionlab.data.images import write_image
from regionlab.data.registry import list_data_sets, load_collection
from regionlab.metrics.ranking import is_own_image
from regionlab.runs.profiles import find_profile, load_profile

PICTURE = np.zeros((2, 3, 3), np.uint8)

# In the order of the files, as published: not sorted, and with what CSV puts in quotes.
CAPTIONS = {
    "36979.jpg": ["A group of friends , playing cards .", 'A sign says "stop" .', "Five men"],
    "1000092795.jpg": ["Two young guys .", "Two men in a yard.jpg , green ."],
}
KARPATHY = {"36979.jpg": "test", "1000092795.jpg": "train"}
LINES = [(name, i, text) for name, texts in CAPTIONS.items() for i, text in enumerate(texts)]


def write_images(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / path, PICTURE)
    return root


def write_flickr(root, file="captions.txt", text=None, folder="Images", names=tuple(CAPTIONS)):
    """Write the pictures and one caption file, by default with the captions above."""
    write_images(root, *(f"{folder}/{name}" for name in names))
    if file:
        WRITERS[file](root / file) if text is None else (root / file).write_text(text, "utf-8")
    return root


def write_comma_file(path, rows=LINES):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption"])
        writer.writerows((name, text) for name, _, text in rows)


def write_bar_file(path):
    lines = [f"{name}| {i}| {text}" for name, i, text in LINES]
    path.write_text("\n".join(["image_name| comment_number| comment", *lines, ""]), "utf-8")


def write_token_file(path):
    path.write_text("".join(f"{name}#{i}\t{text}\n" for name, i, text in LINES), "utf-8")


def write_karpathy_json(path):
    images = [
        {
            "sentids": [0, 1],
            "imgid": number,
            "sentences": [{"tokens": text.split(), "raw": f" {text}\n"} for text in texts],
            "split": KARPATHY[name],
            "filename": name,
        }
        for number, (name, texts) in enumerate(CAPTIONS.items())
    ]
    path.write_text(json.dumps({"images": images, "dataset": "flickr30k"}), "utf-8")


WRITERS = {
    "captions.txt": write_comma_file,
    "results.csv": write_bar_file,
    "results_20130124.token": write_token_file,
    "dataset_flickr30k.json": write_karpathy_json,
}


def skipped_of(collection):
    return dict(zip(collection.skipped["path"], collection.skipped["reason"], strict=True))


# --- Flickr30K: the layouts ---------------------------------------------------------------


@pytest.mark.parametrize("file", WRITERS)
def test_flickr_is_the_same_collection_from_every_file(tmp_path, file):
    collection = load_flickr30k(write_flickr(tmp_path, file))
    assert collection.images["image_id"].tolist() == ["36979", "1000092795"]
    assert collection.images["path"].tolist() == ["Images/36979.jpg", "Images/1000092795.jpg"]
    assert collection.captions["caption_id"].tolist() == [
        "36979#0", "36979#1", "36979#2", "1000092795#0", "1000092795#1",
    ]  # fmt: skip
    assert collection.captions["image_id"].tolist() == 3 * ["36979"] + 2 * ["1000092795"]
    assert collection.captions["caption"].tolist() == sum(CAPTIONS.values(), [])
    assert (collection.name, collection.split) == (tmp_path.name, None)
    assert collection.missing_files().empty
    assert collection.skipped.empty


@pytest.mark.parametrize("folder", IMAGE_FOLDERS)
def test_flickr_pictures_are_found_in_every_usual_folder(tmp_path, folder):
    collection = load_flickr30k(str(write_flickr(tmp_path, folder=folder)))
    assert collection.image_path("36979") == tmp_path / folder / "36979.jpg"
    assert collection.read("36979").shape == (2, 3, 3)


@pytest.mark.parametrize("place", ["flickr30k_images", "flickr30k_images/flickr30k_images"])
def test_flickr_captions_may_lie_with_the_pictures(tmp_path, place):
    write_flickr(tmp_path, file=None, folder="flickr30k_images/flickr30k_images")
    write_bar_file(tmp_path / place / "results.csv")
    collection = load_flickr30k(tmp_path)
    assert len(collection.captions) == 5
    assert collection.missing_files().empty
    assert collection.skipped.empty


@pytest.mark.parametrize("text", ["Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt"])
def test_flickr8k_is_found_as_its_authors_published_it(tmp_path, text):
    write_flickr(tmp_path, None, folder="Flicker8k_Dataset")
    (tmp_path / text).parent.mkdir(exist_ok=True)
    write_token_file(tmp_path / text)
    assert load_flickr30k(tmp_path).captions["caption"].tolist() == sum(CAPTIONS.values(), [])


def test_flickr_line_without_its_last_bar_is_read(tmp_path):
    text = "image_name| comment_number| comment\n36979.jpg| 4   A dog runs across the grass .\n"
    collection = load_flickr30k(write_flickr(tmp_path, "results.csv", text))
    assert collection.captions["caption"].tolist() == ["A dog runs across the grass ."]


def test_flickr_quotes_are_csv_only_around_a_whole_caption(tmp_path):
    text = '36979.jpg,"Go" and "stop"\n36979.jpg,"A ""stop"" , red"\n36979.jpg,one , two\n'
    collection = load_flickr30k(write_flickr(tmp_path, text=text))
    assert collection.captions["caption"].tolist() == [
        '"Go" and "stop"',
        'A "stop" , red',
        "one , two",
    ]


def test_flickr_quotes_of_the_token_file_are_the_captions_own(tmp_path):
    text = '36979.jpg#0\t"Stop"\n'
    collection = load_flickr30k(write_flickr(tmp_path, "results_20130124.token", text))
    assert collection.captions["caption"].tolist() == ['"Stop"']


def test_flickr_reads_files_of_other_systems(tmp_path):
    write_flickr(tmp_path, file=None)
    text = "\ufeffimage,caption\r\n36979.JPG,Größe\u2028zählt \r\n\r\n"
    (tmp_path / "captions.txt").write_bytes(text.encode())
    captions = load_flickr30k(tmp_path).captions
    assert captions["caption"].tolist() == ["Größe\u2028zählt"]


@pytest.mark.parametrize(
    "text",
    [
        'image_name,comment_number,comment\n36979.jpg,0,A dog runs .\n36979.jpg,1," Dogs, two"\n',
        'comment,image_name\n"A dog runs .",36979.jpg\n" Dogs, two",36979.jpg\n',
        '"image"\t"caption"\n36979.jpg\tA dog runs .\n"36979.jpg"\t"Dogs, two"\n',
        "Image;Split;Caption\n36979.jpg;a;A dog runs .\n36979.jpg;b;Dogs, two\n",
        "image_name| comment_number| comment\n36979.jpg| 0| A dog runs .\n36979.jpg|1|Dogs, two\n",
        "36979.jpg,0,A dog runs .\n36979.jpg,1,Dogs, two\n",
        "36979.jpg\tA dog runs .\n36979.jpg\tDogs, two\n",
        '\ufeffimage,caption\r\n36979.jpg,A dog runs .\r\n"36979.jpg","Dogs, two"\r\n',
        'image,caption\n36979.jpg, A dog runs .\n36979.jpg, "Dogs, two"\n',
    ],
)
@pytest.mark.parametrize("file", ["captions.txt", "results.csv"])
def test_flickr_columns_are_found_by_their_names(tmp_path, file, text):
    write_flickr(tmp_path, None, names=["36979.jpg"])
    (tmp_path / file).write_bytes(text.encode())
    collection = load_flickr30k(tmp_path)
    assert collection.captions["caption"].tolist() == ["A dog runs .", "Dogs, two"]
    assert collection.images["path"].tolist() == ["Images/36979.jpg"]
    assert collection.skipped.empty


@pytest.mark.parametrize(
    "header",
    [
        "image,words",
        "picture,caption",
        "comment_number,comment",
        "image caption",
        "A dog,36979.jpg",
    ],
)
def test_flickr_header_that_is_not_understood_is_refused(tmp_path, header):
    write_flickr(tmp_path, text=f"{header}\n36979.jpg,A dog\n")
    with pytest.raises(ValueError, match=rf"line 1: the header '{header}' is .*image,caption; "):
        load_flickr30k(tmp_path)


def test_flickr_as_csv_writes_it_is_read_back(tmp_path):
    names = ["a,b.jpg", 'c"d".webp', "e f.png", "#1.jpg"]
    texts = ['two\nlines, "so"', '"all" in quotes', "| ; \t", "x" * 999, '"', "1.jpg,A"]
    rows = [(name, 0, text) for name in names for text in texts]
    write_flickr(tmp_path, None, names=[])
    write_images(tmp_path, "Images/z.jpg")
    write_comma_file(tmp_path / "captions.txt", rows)
    collection = load_flickr30k(tmp_path)
    assert collection.images["path"].tolist() == [f"Images/{name}" for name in names]
    assert collection.captions["caption"].tolist() == [text.strip() for _, _, text in rows]


def test_flickr_quote_that_is_never_closed_takes_no_other_line(tmp_path):
    text = 'image,caption\n1.jpg,"A dog\n2.jpg,B\n3.jpg,C "\n'
    collection = load_flickr30k(write_flickr(tmp_path, text=text, names=["1.jpg"]))
    assert collection.captions["caption"].tolist() == ['"A dog', "B", 'C "']


def test_flickr_broken_lines_are_left_out_and_listed(tmp_path):
    text = "image_name,comment_number,comment\n1.jpg,0,A\nA dog\n1.jpg,two,B\n1.jpg\n1.jpg,1,C\n"
    collection = load_flickr30k(write_flickr(tmp_path, text=text, names=["1.jpg"]))
    assert collection.captions["caption"].tolist() == ["A", "C"]
    assert skipped_of(collection) == {
        "captions.txt, line 3": "is no image and caption: 'A dog'",
        "captions.txt, line 4": "is no image and caption: '1.jpg,two,B'",
        "captions.txt, line 5": "is no image and caption: '1.jpg'",
    }


@pytest.mark.parametrize("name", ["1.jpg.1", "", "../1.jpg", "/1.jpg", "a//1.jpg", "no picture"])
def test_flickr_lines_that_name_no_picture_are_left_out_and_counted(tmp_path, name):
    text = f"1.jpg#0\tA\n{name}#0\tB\n{name}#1\tC\n"
    collection = load_flickr30k(
        write_flickr(tmp_path, "results_20130124.token", text, names=["1.jpg"])
    )
    assert collection.captions["caption"].tolist() == ["A"]
    assert skipped_of(collection) == {
        "results_20130124.token, line 2": f"{name!r} is no picture: 2 captions left out"
    }


def test_flickr_picture_without_a_known_suffix_counts_if_it_is_there(tmp_path):
    write_flickr(tmp_path, "results_20130124.token", "1.jpg.1#0\tA\n", names=["1.jpg"])
    (tmp_path / "Images/1.jpg").rename(tmp_path / "Images/1.jpg.1")
    assert load_flickr30k(tmp_path).read("1.jpg").shape == (2, 3, 3)


def test_flickr_images_of_one_stem_are_told_apart(tmp_path):
    text = "image,caption\n1.jpg,A\n1.png,B\n2.jpg,C\n"
    collection = load_flickr30k(
        write_flickr(tmp_path, text=text, names=["1.jpg", "1.png", "2.jpg"])
    )
    assert collection.images["image_id"].tolist() == ["1.jpg", "1.png", "2"]
    assert collection.captions["image_id"].tolist() == ["1.jpg", "1.png", "2"]


def test_flickr_broken_images_of_the_json_are_left_out_and_listed(tmp_path):
    sound = {"filename": "1.jpg", "sentences": [{"raw": "A"}], "split": "test"}
    images = [sound, {}, sound, sound | {"filename": 5}, sound | {"sentences": [{}]}, 7, None]
    text = json.dumps({"images": images})
    collection = load_flickr30k(
        write_flickr(tmp_path, "dataset_flickr30k.json", text, names=["1.jpg"])
    )
    assert collection.captions["caption"].tolist() == ["A"]
    assert list(skipped_of(collection)) == [
        f"dataset_flickr30k.json, image {i}" for i in range(2, 8)
    ]


def test_flickr_lists_what_was_left_out_of_the_pictures(tmp_path):
    write_flickr(tmp_path, names=[*CAPTIONS])
    for name in ("5.heic", "6.cr2", "@eaDir/36979.jpg/THUMB.jpg"):
        (tmp_path / "Images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Images" / name).touch()
    skipped = skipped_of(load_flickr30k(tmp_path))
    assert {"Images/6.cr2", "Images/@eaDir"} <= set(skipped) and "Images/5.heic" in skipped


# --- Flickr30K: splits ----------------------------------------------------------------------


@pytest.mark.parametrize(("split", "image"), [("test", "36979"), ("train", "1000092795")])
def test_flickr_split_is_karpathys(tmp_path, split, image):
    write_flickr(tmp_path)
    write_karpathy_json(tmp_path / "dataset_flickr30k.json")
    collection = load_flickr30k(tmp_path, split)
    assert collection.images["image_id"].tolist() == [image]
    assert collection.captions["image_id"].unique().tolist() == [image]
    assert collection.split == split
    assert collection.skipped.empty


def test_flickr_split_is_read_from_the_list_of_its_captions(tmp_path):
    write_flickr(tmp_path)
    rows = [row for row in LINES if row[0] == "36979.jpg"]
    write_comma_file(tmp_path / "flickr30k_test_karpathy.txt", rows)
    collection = load_flickr30k(tmp_path, "test")
    assert collection.images["image_id"].tolist() == ["36979"]
    assert collection.captions["caption"].tolist() == CAPTIONS["36979.jpg"]
    assert collection.skipped.empty


def test_flickr_without_a_split_is_all_of_it_whichever_way_that_is_said(tmp_path):
    write_flickr(tmp_path, "dataset_flickr30k.json")
    for split in (None, ""):
        collection = load_flickr30k(tmp_path, split)
        assert (len(collection), collection.split) == (2, None)


def test_flickr_split_needs_a_file_that_knows_splits(tmp_path):
    write_flickr(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        load_flickr30k(tmp_path, "val")
    for part in ("'val'", "dataset_flickr30k.json", "flickr30k_val_karpathy.txt", "captions.txt"):
        assert part in str(caught.value)


def test_flickr_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'dev'; known: train, val, test, or None"):
        load_flickr30k(write_flickr(tmp_path), "dev")


def test_flickr_split_without_images_is_refused(tmp_path):
    write_flickr(tmp_path, "dataset_flickr30k.json")
    with pytest.raises(ValueError, match=r"dataset_flickr30k\.json names no image of split 'val'"):
        load_flickr30k(tmp_path, "val")


# --- Flickr30K: what is missing or broken ---------------------------------------------------


def test_flickr_without_captions_says_what_it_looked_for_and_found(tmp_path):
    write_flickr(tmp_path, file=None)
    (tmp_path / "readme.txt").touch()
    with pytest.raises(FileNotFoundError) as caught:
        load_flickr30k(tmp_path)
    for part in (*WRITERS, "Images, readme.txt", "Denotation Graph"):
        assert part in str(caught.value)


def test_flickr_without_pictures_says_where_it_looked(tmp_path):
    write_flickr(tmp_path, folder="pictures")
    with pytest.raises(FileNotFoundError) as caught:
        load_flickr30k(tmp_path)
    for part in (*IMAGE_FOLDERS, "captions.txt, pictures", "University of Illinois"):
        assert part in str(caught.value)


def test_flickr_in_a_missing_folder_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        load_flickr30k(tmp_path / "nowhere")


def test_flickr_keeps_images_that_are_not_on_disk(tmp_path):
    write_flickr(tmp_path, names=["36979.jpg"])
    collection = load_flickr30k(tmp_path)
    assert len(collection) == 2
    assert collection.missing_files()["image_id"].tolist() == ["1000092795"]


def test_flickr_reports_pictures_without_captions(tmp_path):
    write_flickr(tmp_path, names=[*CAPTIONS, "4.jpg", "2.jpg", "3.JPG", "1.jpg"])
    (tmp_path / "Images/readme.txt").touch()
    collection = load_flickr30k(tmp_path)
    assert len(collection) == 2
    rest = ["Images/1.jpg", "Images/2.jpg", "Images/3.JPG", "Images/4.jpg"]
    assert collection.skipped["path"].tolist() == rest
    assert set(collection.skipped["reason"]) == {"no caption in captions.txt"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("captions.txt", "36979.jpg,\n36979.jpg,B\n1000092795.jpg, \n"),
        ("results.csv", "36979.jpg| 0|\n36979.jpg| 1| B\n1000092795.jpg| 0| \n"),
        ("results_20130124.token", "36979.jpg#0\t\n36979.jpg#1\tB\n1000092795.jpg#0\t\t\n"),
    ],
)
def test_flickr_empty_captions_are_left_out_and_reported(tmp_path, file, text):
    collection = load_flickr30k(write_flickr(tmp_path, file, text))
    assert collection.images["image_id"].tolist() == ["36979", "1000092795"]
    assert collection.captions["caption_id"].tolist() == ["36979#1"]
    assert skipped_of(collection) == {
        "Images/36979.jpg": "caption 36979#0 is empty",
        "Images/1000092795.jpg": "caption 1000092795#0 is empty",
    }


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("captions.txt", "image,caption\n", r"captions\.txt names no image"),
        ("captions.txt", "image,caption\nA dog\n", r"captions\.txt, line 2 .*'A dog'"),
        (
            "captions.txt",
            "name;text\n1.jpg;A\n",
            r"line 1: the header 'name;text' .*image,caption;",
        ),
        ("captions.txt", "../1.jpg,A\n", r"names no image; .*line 1 '\.\./1\.jpg' is no picture"),
        ("results_20130124.token", "1.jpg#0 A dog\n", r"token, line 1 .*'1\.jpg#0 A dog'"),
        ("dataset_flickr30k.json", "{", "not in the format of Karpathy's splits"),
        ("dataset_flickr30k.json", "[]", "not in the format of Karpathy's splits"),
        ("dataset_flickr30k.json", '{"images": [{}]}', "splits: KeyError"),
        (
            "dataset_flickr30k.json",
            '{"images": [{"filename": "1.jpg", "sentences": [{"raw": 5}], "split": "test"}]}',
            "splits: AttributeError",
        ),
        ("dataset_flickr30k.json", '{"images": []}', r"json names no image"),
    ],
)
def test_broken_flickr_is_explained(tmp_path, file, text, message):
    with pytest.raises(ValueError, match=message):
        load_flickr30k(write_flickr(tmp_path, file, text))


def test_flickr_file_in_another_encoding_is_explained(tmp_path):
    write_flickr(tmp_path, file=None)
    (tmp_path / "captions.txt").write_bytes(b"36979.jpg,caf\xe9\n")
    with pytest.raises(ValueError, match=r"captions\.txt is not UTF-8"):
        load_flickr30k(tmp_path)


# --- Fashion200K ----------------------------------------------------------------------------

RED, BLUE, JACKET, COAT = (
    "women/dresses/casual_and_day_dresses/51727804/51727804_0.jpeg",
    "women/dresses/casual_and_day_dresses/51727804/51727804_1.jpeg",
    "women/jackets/blazers_and_suit_jackets/90412345/90412345_0.jpeg",
    "women/jackets/casual_jackets/777/777_3.jpeg",
)
LABELS = {
    "dress_test": f"{RED}\t4.252\tred linen a-line dress\n{BLUE}\t-1.5\tblue linen a-line dress \n",
    "jacket_test": f"{JACKET}\t2\tred linen a-line dress\n",
    "jacket_train": f"{COAT}\t0.5\tblack biker jacket\n",
}


def write_fashion(root, pictures=(RED, BLUE, JACKET, COAT), **labels):
    """Write pictures and label files; a label file given replaces the one above."""
    (root / "labels").mkdir()
    (root / "women").mkdir()
    for name, text in (LABELS | labels).items():
        (root / f"labels/{name}_detect_all.txt").write_text(text, "utf-8")
    return write_images(root, *pictures)


def test_fashion_gives_images_with_their_descriptions(tmp_path):
    collection = load_fashion200k(write_fashion(tmp_path), "test")
    images, captions = collection.images, collection.captions
    assert images["image_id"].tolist() == images["path"].tolist() == [RED, BLUE, JACKET]
    assert images["label"].tolist() == ["dress", "dress", "jacket"]
    assert images["product"].tolist() == ["51727804", "51727804", "90412345"]
    assert images["detection_score"].tolist() == [4.252, -1.5, 2.0]
    assert captions["image_id"].tolist() == captions["caption_id"].tolist() == [RED, BLUE, JACKET]
    assert captions["caption"].tolist() == [
        "red linen a-line dress", "blue linen a-line dress", "red linen a-line dress",
    ]  # fmt: skip
    assert collection.read(RED).shape == (2, 3, 3)
    assert (collection.name, collection.split) == (tmp_path.name, "test")
    assert collection.skipped.empty


@pytest.mark.parametrize("split", [None, ""])
def test_fashion_without_a_split_is_both(tmp_path, split):
    collection = load_fashion200k(write_fashion(tmp_path), split)
    assert collection.images["split"].tolist() == ["test", "test", "test", "train"]
    assert collection.split is None


def test_fashion_train_is_not_test(tmp_path):
    collection = load_fashion200k(write_fashion(tmp_path), "train")
    assert collection.images["image_id"].tolist() == [COAT]


def test_fashion_images_of_one_description_answer_each_other(tmp_path):
    texts = load_fashion200k(write_fashion(tmp_path), "test").captions["caption"]
    expected = [[True, False, True], [False, True, False], [True, False, True]]
    assert is_own_image(texts, texts).tolist() == expected


def test_fashion_keeps_images_that_are_not_on_disk(tmp_path):
    collection = load_fashion200k(write_fashion(tmp_path, pictures=[RED]), "test")
    assert len(collection) == 3
    assert collection.missing_files()["image_id"].tolist() == [BLUE, JACKET]


def test_fashion_category_without_images_is_reported(tmp_path):
    collection = load_fashion200k(write_fashion(tmp_path, jacket_test="\n"), "test")
    assert collection.images["label"].unique().tolist() == ["dress"]
    assert skipped_of(collection) == {
        "labels/jacket_test_detect_all.txt": "label file that names no image"
    }


def test_fashion_empty_descriptions_are_left_out_and_reported(tmp_path):
    collection = load_fashion200k(write_fashion(tmp_path, jacket_test=f"{JACKET}\t2\t \n"), "test")
    assert collection.images["image_id"].tolist() == [RED, BLUE, JACKET]
    assert collection.captions["image_id"].tolist() == [RED, BLUE]
    assert skipped_of(collection) == {JACKET: f"caption {JACKET} is empty"}


def test_fashion_image_listed_twice_counts_once(tmp_path):
    root = write_fashion(tmp_path, jacket_test=f"{RED}\t9\tred jacket\n{JACKET}\t2\tjacket\n")
    collection = load_fashion200k(root, "test")
    assert collection.images["image_id"].tolist() == [RED, BLUE, JACKET]
    assert collection.images["label"].tolist() == ["dress", "dress", "jacket"]
    assert skipped_of(collection) == {RED: "listed a second time, in jacket_test_detect_all.txt"}


def test_fashion_without_labels_says_what_it_looked_for_and_found(tmp_path):
    write_images(tmp_path, RED)
    with pytest.raises(FileNotFoundError, match=r"labels/\*_test_detect_all\.txt; .*women.*Han"):
        load_fashion200k(tmp_path, "test")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/dress_train_detect_all.txt").touch()
    with pytest.raises(FileNotFoundError, match="holds dress_train_detect_all"):
        load_fashion200k(tmp_path, "test")


def test_fashion_without_pictures_says_what_it_looked_for_and_found(tmp_path):
    write_fashion(tmp_path, pictures=[])
    (tmp_path / "women").rename(tmp_path / "men")
    with pytest.raises(FileNotFoundError, match="no folder women/ .*holds labels, men.*Han"):
        load_fashion200k(tmp_path)


def test_fashion_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'val'; known: train, test, or None"):
        load_fashion200k(write_fashion(tmp_path), "val")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{BLUE}\t1", "is not a path, a score"),
        (f"{BLUE}\t1\tblue\tdress", "is not a path, a score"),
        (f"{BLUE}\tsure\tblue", "is not a path, a score"),
        ("../secret.jpeg\t1\tred", "'../secret.jpeg' leaves the folder"),
        ("/secret.jpeg\t1\tred", "'/secret.jpeg' leaves the folder"),
    ],
)
def test_fashion_broken_lines_are_left_out_and_listed(tmp_path, line, reason):
    text = f"{RED}\t1\tred\n\n{line}\n"
    collection = load_fashion200k(write_fashion(tmp_path, dress_test=text), "test")
    assert collection.images["image_id"].tolist() == [RED, JACKET]
    ((where, why),) = skipped_of(collection).items()
    assert where == "labels/dress_test_detect_all.txt, line 3"
    assert why.startswith(reason)


def test_fashion_without_any_image_is_refused(tmp_path):
    root = write_fashion(tmp_path, dress_test="", jacket_test="")
    with pytest.raises(ValueError, match="names an image: dress_test.*, jacket_test"):
        load_fashion200k(root, "test")


# --- COCO -----------------------------------------------------------------------------------


def write_coco(root, *captions, annotations=()):
    images = [{"id": 139, "file_name": "139.jpg"}, {"id": 285, "file_name": "285.jpg"}]
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    texts = [{"id": i, "image_id": image, "caption": c} for i, (image, c) in enumerate(captions)]
    write_images(root, "val2017/139.jpg", "val2017/285.jpg")
    (root / "annotations").mkdir()
    for kind, records in {"captions": texts, "instances": list(annotations)}.items():
        data = {"images": images, "annotations": records, "categories": categories}
        (root / f"annotations/{kind}_val2017.json").write_text(json.dumps(data), "utf-8")
    return root


def test_coco_empty_captions_are_left_out_and_reported(tmp_path):
    collection = load_coco(write_coco(tmp_path, (139, "A dog."), (285, " \n"), (139, "")))
    assert collection.captions["caption"].tolist() == ["A dog."]
    assert collection.images["image_id"].tolist() == ["139", "285"]
    assert skipped_of(collection) == {
        "val2017/285.jpg": r"annotations[1], id 1 of annotations/captions_val2017.json: "
        r"caption is ' \n', not a text",
        "val2017/139.jpg": "annotations[2], id 2 of annotations/captions_val2017.json: "
        "caption is '', not a text",
    }


def test_coco_category_without_images_is_none_of_the_collections(tmp_path):
    annotation = {"id": 5, "image_id": 139, "category_id": 90, "bbox": [0, 0, 2, 1], "area": 2}
    collection = load_coco(write_coco(tmp_path, annotations=[annotation]))
    assert collection.objects["category"].unique().tolist() == ["toothbrush"]
    assert collection.summary()["categories"] == 1


# --- by name --------------------------------------------------------------------------------


def test_captioned_sets_are_loaded_by_kind(tmp_path):
    for name in ("flickr", "fashion"):
        (tmp_path / name).mkdir()
    write_flickr(tmp_path / "flickr")
    write_fashion(tmp_path / "fashion")
    assert len(load_collection("flickr30k", tmp_path / "flickr", split="")) == 2
    assert len(load_collection("fashion200k", tmp_path / "fashion", split="train")) == 1


@pytest.mark.parametrize("name", ["flickr30k", "fashion200k"])
def test_profile_names_a_layout_and_parameters_that_exist(name):
    profile = load_profile(find_profile(name))
    assert {run.parameters.get("dataset", name) for run in profile.runs} == {name}
    assert name in list_data_sets("collection")


def test_a_broken_sentence_costs_that_sentence(tmp_path):
    sentences = [{"raw": "A dog."}, {"raw": None}, 5, {"raw": "half \ud800"}, {"raw": "It runs."}]
    images = [
        {"filename": "1.jpg", "split": "train", "sentences": sentences},
        {"filename": "\ud800.jpg", "split": "train", "sentences": sentences[:1]},
    ]
    text = json.dumps({"images": images})
    write_flickr(tmp_path, "dataset_flickr30k.json", text, names=["1.jpg"])
    collection = load_flickr30k(tmp_path)
    assert list(collection.captions["caption"]) == ["A dog.", "It runs."]
    assert len(collection.skipped) == 4

"""The last word of a table: are the samples what was asked for, like the real ones, varied, copied? A sentence each.

Each sentence has the number that it rests on, and the same number of real images. What was not measured is said to be.
"""

NEAR, FAR = 1.3, 2.0  # patch distance: as the real images among themselves, and as noise, fog and blur
COPIES = 0.15  # share of copies; 0.05 without any


def verdict(tables: list[dict]) -> str:
    """The four sentences under a heading, a line each."""
    return "\n".join(("verdict:", *(f"  {line}" for line in sentences(tables))))


def sentences(tables: list[dict]) -> list[str]:
    """Four sentences of the tables of one set of samples, as `measure` and `measure_patches` give them."""
    numbers = {key: value for table in reversed(tables) for key, value in table.items()}
    by = {key: table["network"] for table in reversed(tables) if "network" in table for key in table}
    return [line(numbers, by) for line in (asked_for, like_real, varied, copied)]


def asked_for(numbers: dict, by: dict) -> str:
    """Do samples show their class or prompt?"""
    for key, words in (
        ("class_accuracy", "show their class to a classifier that knows it"),
        ("nearest_class", "are nearest to a training image of their class"),
        ("prompt_accuracy", "fit their prompt better than its alternatives"),
    ):
        if key in numbers:
            beside = [f"{numbers[f'{key}_real']:.2f} of real images are"] if f"{key}_real" in numbers else []
            beside += [f"{numbers['prompt_chance']:.2f} by chance"] if key == "prompt_accuracy" else []
            return f"asked for: {numbers[key]:.2f} of the samples {words}{'; ' * bool(beside)}{'; '.join(beside)}."
    return "asked for: not measured, as no network here knows these classes (--prompt with a CLIP compares words)."


def like_real(numbers: dict, by: dict) -> str:
    """Are samples like real images?"""
    if "patch_distance" in numbers:
        distance = numbers["patch_distance"]
        word = "yes" if distance < NEAR else "no" if distance > FAR else "in part"
        return f"like the real ones: {word}, {distance:.2f} times as far as these are from one another, in texture."
    if "kid_x1000" not in numbers:
        return "like the real ones: not measured."
    value, deviation = numbers["kid_x1000"], numbers.get("kid_deviation_x1000", float("inf"))
    words = f"KID x 1000 {value:.1f} +- {deviation:.1f} in {by['kid_x1000']}"
    if abs(value) <= 2 * deviation:
        return f"like the real ones: no difference shows at so few images, {words}."
    beside = f", {numbers['kid_real_x1000']:.1f} for the training images" if "kid_real_x1000" in numbers else ""
    return f"like the real ones: a difference shows, {words}{beside}."


def varied(numbers: dict, by: dict) -> str:
    """Do samples differ from one another?"""
    if "varied" in numbers:
        share = numbers["varied"]
        word = "yes" if share > 0.8 else "no" if share < 0.5 else "in part"
        return f"varied: {word}, samples of a class are {share:.2f} times as far apart as real images are."
    if "coverage" in numbers:
        return f"varied: {numbers['coverage']:.2f} of the real images have a sample near them, in {by['coverage']}."
    return "varied: not measured, which takes two samples of a class and two real images."


def copied(numbers: dict, by: dict) -> str:
    """Are samples copies of the training images?"""
    found = {key: numbers[key] for key in ("copies_patches", "copies", "copies_pixels") if key in numbers}
    if not found:
        return "copied: not measured, which takes the training images (--train)."
    key = max(found, key=found.get)
    word = "yes, in part" if found[key] > COPIES else "no"
    return (
        f"copied: {word}, {found[key]:.2f} of the samples are nearer to a training image than the nearest 0.05 of real "
        f"images are ({'in pixels' if key == 'copies_pixels' else by[key]})."
    )

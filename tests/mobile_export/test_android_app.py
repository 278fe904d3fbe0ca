"""The Android project as files: versions, strings, resources, types of the app; and what `export --android` makes of it."""

import json
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from keras_compress.cli import main
from mobile_export import android_app
from mobile_export.contract import write_vectors
from mobile_export.convert import export
from tests.bert import tiny
from tests.mobile_export.kotlin_jvm import ANDROID, HERE, LIBRARY, compile_kotlin
from tests.support import ROOT

RESOURCES = ANDROID / "app/src/main/res"
MANIFEST = ANDROID / "app/src/main/AndroidManifest.xml"
APP = ANDROID / "app/src/main/kotlin"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
PLATFORM = ROOT / "data/cache/android/android-23.jar"  # .ci/system fetches it
NAMESPACE = "{http://schemas.android.com/apk/res/android}"


def test_versions_and_aliases_exist_and_are_used():
    catalogue = tomllib.loads((ANDROID / "gradle/libs.versions.toml").read_text())
    scripts = {path: path.read_text() for path in ANDROID.rglob("*.gradle.kts")}
    code = "\n".join(scripts.values())
    used = {*re.findall(r"libs\.([\w.]+?)(?:\.get\(\)|\))", code)}
    alias = lambda kind, name: kind + name.replace("-", ".")
    defined = {alias("", name) for name in catalogue["libraries"]}
    defined |= {alias("plugins.", name) for name in catalogue["plugins"]}
    entries = [*catalogue["libraries"].values(), *catalogue["plugins"].values()]
    referred = {each["version"]["ref"] for each in entries}
    defined |= {f"versions.{name}" for name in catalogue["versions"].keys() - referred}
    assert used == defined and referred <= catalogue["versions"].keys()
    modules = re.findall(r'":(\w+)"', scripts[ANDROID / "settings.gradle.kts"])
    assert modules == ["library", "app"]
    assert {ANDROID / module / "build.gradle.kts" for module in modules} < scripts.keys()
    # The compiler of the tests is the one that Gradle takes.
    lock = json.loads((HERE / "package-lock.json").read_text())["packages"]
    compiler = lock["node_modules/kotlin-compiler"]["version"]
    assert compiler == catalogue["versions"]["kotlin"]
    wrapper = (ANDROID / "gradle/wrapper/gradle-wrapper.properties").read_text()
    assert "gradle-9.4.1-bin.zip" in wrapper and catalogue["versions"]["agp"].startswith("9.2.")


def strings(language):
    root = ET.parse(RESOURCES / f"values{language}/strings.xml").getroot()
    return {e.get("name"): e.text for e in root if e.get("translatable") != "false"}


def test_both_languages_have_all_strings_with_the_same_places():
    english, chinese = strings(""), strings("-zh")
    assert english.keys() == chinese.keys()
    places = lambda text: sorted(re.findall(r"%\d\$[.\d]*\w|%%", text))
    for name, text in english.items():
        assert places(text) == places(chinese[name]), name
        assert text != chinese[name] and not re.search(r"(?<!\\)'", text), name
    code = "".join(path.read_text() for path in APP.rglob("*.kt"))
    layouts = "".join(path.read_text() for path in RESOURCES.glob("layout/*.xml"))
    used = {*re.findall(r"R\.string\.(\w+)", code), *re.findall(r"@string/(\w+)", layouts)}
    assert used == {*english}


def test_what_can_be_touched_is_named_and_large_enough():
    styles = {s.get("name"): s for s in ET.parse(RESOURCES / "values/styles.xml").iter("style")}
    for path in RESOURCES.glob("layout/*.xml"):
        for view in ET.parse(path).iter():
            if view.tag not in ("Button", "RadioButton", "EditText", "Spinner"):
                continue
            style = styles.get(view.get("style", "").removeprefix("@style/"), ())
            told = {item.get("name"): item.text for item in style}
            assert (
                view.get(f"{NAMESPACE}minHeight") == "48dp" or told["android:minHeight"] == "48dp"
            )
            name = {"EditText": "hint", "Spinner": "contentDescription"}.get(view.tag, "text")
            assert view.get(NAMESPACE + name, "").startswith("@string/"), (path.name, view.attrib)


def test_texts_that_android_saves_stay_below_its_bound():
    style = next(
        s
        for s in ET.parse(RESOURCES / "values/styles.xml").iter("style")
        if s.get("name") == "Input"
    )
    (most,) = [x.text for x in style if x.get("name") == "android:maxLength"]
    inputs = sum(path.read_text().count("<EditText") for path in RESOURCES.glob("layout/*.xml"))
    assert 2 * int(most) * inputs < 500_000  # bytes in UTF-16; beyond 1 MB the app is ended


def merged_manifest():
    """The manifest as the merger leaves it, without what other packages bring."""
    text = re.sub(r'<uses-permission [^>]*tools:node="remove" />', "", MANIFEST.read_text())
    return text.replace("<manifest ", '<manifest package="kerascompress.app" ', 1)


def test_no_permission_is_asked_for():
    assert "uses-permission" not in merged_manifest()
    assert 'android.permission.INTERNET" tools:node="remove"' in MANIFEST.read_text()
    code = "".join(path.read_text() for path in ANDROID.rglob("*.kt"))
    assert not re.search(r"java\.net|Socket|HttpURL|WebView", code)


def linked(folder):
    """Links manifest and resources by Debian's aapt; gives the package and the folder of R.java."""
    if not shutil.which("aapt") or not FRAMEWORK.is_file():
        pytest.skip("needs aapt and android-framework-res (bash .ci/system installs them)")
    manifest, package, code = folder / "AndroidManifest.xml", folder / "app.apk", folder / "gen"
    manifest.write_text(merged_manifest())
    code.mkdir()
    command = [
        "aapt",
        "package",
        "-m",
        "-J",
        code,
        "-M",
        manifest,
        "-S",
        RESOURCES,
        "-I",
        FRAMEWORK,
    ]
    command += ["-F", package, "--min-sdk-version", "23", "--target-sdk-version", "36"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return package, code


def dumped(what, package):
    return subprocess.run(["aapt", "dump", what, package], capture_output=True, text=True).stdout


def test_resources_are_linked(tmp_path):
    package, _ = linked(tmp_path)
    about = dumped("badging", package)
    for part in (
        "package: name='kerascompress.app'",
        "sdkVersion:'23'",
        "targetSdkVersion:'36'",
        "launchable-activity: name='kerascompress.app.MainActivity'",
        "'zh'",
    ):
        assert part in about
    assert "uses-permission" not in dumped("permissions", package)
    for part in ("layout/main", "layout/compare", "style/App", "string/problem_damaged"):
        assert f"kerascompress.app:{part}" in dumped("resources", package)


def test_a_turned_phone_keeps_what_the_screen_shows(tmp_path):
    package, _ = linked(tmp_path)
    command = ["aapt", "dump", "xmltree", package, "AndroidManifest.xml"]
    tree = subprocess.run(command, capture_output=True, text=True).stdout
    kept = int(re.search(r"configChanges.*\)0x(\w+)", tree)[1], 16)
    assert (
        kept & 0x80 and kept & 0x400
    )  # orientation, screen size: else Android makes the activity anew
    # What is kept must not hang on a layout or strings of that orientation; night colours do, and are not kept.
    assert not kept & 0x200 and not [*RESOURCES.glob("*-land*"), *RESOURCES.glob("*-sw*")]


@pytest.mark.slow
def test_types_of_library_and_app_on_android_23(tmp_path):
    """Library and app compile against Android 6 and stand-ins for LiteRT, MediaPipe and one newer class."""
    if not PLATFORM.is_file():
        pytest.skip(f"needs {PLATFORM} (bash .ci/system fetches it)")
    _, code = linked(tmp_path)
    compile_kotlin(tmp_path / "out", LIBRARY, APP, code, HERE / "stubs", classpath=PLATFORM)
    assert (tmp_path / "out/kerascompress/app/MainActivity.class").is_file()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "small model"
    model = tiny.model()
    export(model, folder, ["float32"], sequence_length=16, parity_texts=2)
    write_vectors(folder, model)
    return folder


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_a_project_is_copied_with_the_model(exported, tmp_path):
    app = tmp_path / "Meine <App> & 'ich'"
    app.mkdir()
    place = android_app.write_app(app, exported)
    assert place == app / android_app.MODELS / "small-model"
    assert files(place) == files(exported)
    assert {"model.json", "vocab.txt", "labels.txt", "parity.json"} < {*files(place)}
    original, copied = files(ANDROID), files(app)
    changed = {name for name, content in original.items() if copied[name] != content}
    assert changed == {android_app.SETTINGS, android_app.STRINGS}
    root = ET.parse(app / android_app.STRINGS).getroot()
    assert root.find("string[@name='app_name']").text == "Meine App ich"
    assert 'rootProject.name = "Meine App ich"' in (app / android_app.SETTINGS).read_text()


def test_what_is_the_users_stays(exported, tmp_path):
    app = tmp_path / "app"
    android_app.write_app(app, exported)
    kotlin = app / "app/src/main/kotlin/kerascompress/app/MainActivity.kt"
    kotlin.write_text("mine")
    (app / "notes.txt").write_text("mine")
    before = files(app)
    with pytest.raises(ValueError, match="is not replaced without `--overwrite`"):
        android_app.write_app(app, exported)
    assert files(app) == before
    android_app.write_app(app, exported, overwrite=True)
    assert files(app) == before
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    android_app.write_app(app, other)
    added = files(app).keys() - before.keys()
    assert {Path(name).parent.name for name in added} == {"other"}
    full = tmp_path / "full"
    full.mkdir()
    (full / "settings.gradle.kts").write_text("// another project\n")
    for wrong in (full, kotlin):
        with pytest.raises(ValueError, match="An app needs a new folder"):
            android_app.write_app(wrong, exported)
    assert files(full) == {"settings.gradle.kts": b"// another project\n"}
    with pytest.raises(ValueError, match="must be one that `export --android` wrote"):
        android_app.next_commands(full)


def test_the_command_line_makes_an_app(tmp_path, capsys):
    model, app = tmp_path / "bert", tmp_path / "my app"
    tiny.model("tagging").save(model)
    command = ["export", "--from", str(model), "--out", str(tmp_path / "phone"), "--length", "16"]
    command += ["--formats", "float32", "--android", str(app)]
    assert main(command) == 0
    assert f"python -m keras_compress android '{app}'" in capsys.readouterr().out
    assert {"float32.tflite", "parity.json"} < {*files(app / android_app.MODELS / "phone")}
    assert main(["android", str(app), "--json"]) == 0
    commands = json.loads(capsys.readouterr().out)["commands"]
    assert [line.split(" ")[0].rpartition("/")[2] for line in commands[::2]] == ["gradle", "adb"]
    assert f"'{app}/gradlew' -p '{app}' installDebug" == commands[1]
    # Refused before the export starts.
    command[4] = str(tmp_path / "other")
    assert main([*command[:-1], str(model)]) == 1 and main(["android", str(model)]) == 1
    assert main([*command[:-1], command[4]]) == 1
    assert capsys.readouterr().err.count("An app needs a new folder") == 2
    assert main([*command, "--formats", "onnx_float32"]) == 1
    assert "runs .tflite files. Received: onnx_float32" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    # Another model's files keep what stands beside them.
    tiny.model("matching").save(tmp_path / "second")
    before = files(tmp_path / "phone")
    command[2:5] = [str(tmp_path / "second"), "--out", str(tmp_path / "phone")]
    assert main([*command[:-2], "--formats", "int8"]) == 1
    assert "one model's" in capsys.readouterr().err and files(tmp_path / "phone") == before


def test_both_pages_say_the_same():
    pages = [(ANDROID / f"README{end}").read_text("utf-8") for end in (".md", ".zh.md")]
    for what in (r"^#+ ", r"^\|", r"^- ", r"^\d\. ", r"\*\*"):
        assert len({len(re.findall(what, page, re.M)) for page in pages}) == 1, what
    for what in (r"python -m .*", r"\d[\d,]{2,}", r"`(?:gradle|adb|my-app/gradlew) [^`]*`"):
        first, second = ({*re.findall(what, page)} for page in pages)
        assert first == second, what

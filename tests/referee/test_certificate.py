"""Certificates: what is judged by the file is judged as by the referee, and what harms the file is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.authoring.faults import FAULTS, by_hand
from gdcompare.backend import Backend
from gdcompare.referee import point as referee_at_work
from gdcompare.referee.certificate import certify, check_certificate, digest, name_of, read, write
from tests.formulas import Network
from tests.planes import Planes, three_planes

LINE = gdc.datasets.noisy_line()
LINEAR = gdc.load_problem("linear-regression")
POINT: dict[str, Any] = {"theta_0": 1.0, "theta_1": [0.0]}
CERTIFICATE = certify(LINEAR, LINE, POINT)


def changed(change: Callable[[dict[str, Any]], object], sign: bool = True) -> dict[str, Any]:
    """Return the certificate after a change, its digest made to fit unless told otherwise."""
    certificate: dict[str, Any] = json.loads(json.dumps(CERTIFICATE))
    change(certificate)
    return certificate | {"digest": digest(certificate)} if sign else certificate


def fraction(text: str) -> Fraction:
    mantissa, exponent = text.split("p")
    return int(mantissa, 16) * Fraction(2) ** int(exponent)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_balls_contain_the_exact_gradient_that_rational_arithmetic_finds(dtype: str) -> None:
    section = CERTIFICATE["sections"][dtype]
    x, y = (
        [Fraction(float.fromhex(*cells)) for cells in rows]
        for rows in (section["features"], [[t] for t in section["targets"]])
    )
    theta_0, theta_1 = (
        Fraction(float.fromhex(text)) for text in (section["params"]["theta_0"], *section["params"]["theta_1"])
    )

    residuals = [theta_0 + theta_1 * x_i - y_i for x_i, y_i in zip(x, y, strict=True)]
    exact: dict[str, Fraction] = {
        "theta_0": 2 * sum(residuals, Fraction(0)) / len(x),
        "theta_1": 2 * sum((r_i * x_i for r_i, x_i in zip(residuals, x, strict=True)), Fraction(0)) / len(x),
    }

    for name, value in exact.items():
        (stated,) = np.ravel(section["truth"][name]["balls"])
        mid, rad = (fraction(text) for text in stated.split(" +/- "))
        assert abs(value - mid) <= rad
        assert [float(value).hex()] == np.ravel(section["truth"][name]["mid"]).tolist()


def test_every_backend_agrees_by_the_file_that_numpy_wrote(
    backend: Backend[Any], linear_model: gdc.Problem, tmp_path: Path
) -> None:
    path = tmp_path / "certificate.json"

    write(certify(linear_model, gdc.datasets.example(linear_model)), path)

    report = check_certificate(path, [backend], dtype=backend.dtype, recompute=True)
    report.assert_agree()
    assert {entry.implementation for entry in report.entries} == {"the certificate", backend.name}
    assert report.context["certificate"]["digest"] == json.loads(path.read_text())["digest"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_certificate_judges_as_the_referee_does(fault: str, dtype: str) -> None:
    def judged(judge: Callable[..., gdc.Report], *point: Any) -> gdc.Report:
        return judge(*point, backends=[], implementations={"mine": FAULTS[fault](by_hand(LINEAR))}, dtype=dtype)

    by_referee, by_file = judged(gdc.verify, LINEAR, LINE, POINT), judged(check_certificate, CERTIFICATE)

    assert by_file.verdict == by_referee.verdict
    for one, other in zip(by_file.entries, by_referee.entries, strict=True):
        np.testing.assert_equal(asdict(one) | {"budget_fraction": 0}, asdict(other) | {"budget_fraction": 0})
        np.testing.assert_allclose(one.budget_fraction, other.budget_fraction, rtol=1e-6)


def test_nothing_is_computed_anew_and_no_problem_is_needed_for_implementations(monkeypatch: pytest.MonkeyPatch) -> None:
    planes, (data, _) = Planes(), three_planes()
    certificate = certify(planes, data)
    for name in ("enclose", "enclose_rows", "budget_of_loss", "budget_of_formula"):
        monkeypatch.setattr(referee_at_work, name, None)
    both = {"right": by_hand(planes), "wrong": FAULTS["flipped sign"](by_hand(planes))}

    report = check_certificate(certificate, implementations=both)

    assert {(entry.implementation, entry.verdict) for entry in report.entries if entry.parameter != "loss"} == {
        ("right", "agree"),
        ("wrong", "wrong"),
    }
    assert "the sign is flipped" in {entry.cause for entry in report.entries}


def test_a_problem_that_is_not_registered_must_be_given_and_be_the_same() -> None:
    ramp = Network("relu", width=2)
    data = gdc.Dataset([[1.0], [2.0]], [0.5, 1.0])
    certificate = certify(ramp, data)

    with pytest.raises(
        ValueError, match=r"about Network\(.*\), '.*formulas:Network', which is not registered here: give it"
    ):
        check_certificate(certificate)
    with pytest.raises(ValueError, match=r"about Network\(.*width=2\), not about Network\(.*width=3\)"):
        check_certificate(certificate, problem=Network("relu"))
    assert check_certificate(certificate, ["numpy"], problem=ramp, recompute=True)


def test_code_that_a_certificate_names_is_never_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.py", tmp_path / "trace"
    path.write_text(f"open({str(trace)!r}, 'w')")
    certificate = changed(lambda each: each["problem"].update(name=f"{path}:Evil"))

    with pytest.raises(ValueError, match="is not registered here"):
        check_certificate(certificate, recompute=True)

    assert not trace.exists()


def test_a_kink_stays_a_set() -> None:
    flat = Network("relu", width=1)
    data = gdc.Dataset([[0.0]], [1.0])
    at_the_kink = {"inner": [[1.0]], "offsets": [0.0], "outer": [1.0], "shift": 0.0}

    def with_slope(slope: float) -> Any:
        def mine(params: Any, features: Any, targets: Any) -> Any:
            _, gradient = by_hand(flat)(params, features, targets)
            return None, gradient | {"offsets": np.array([-2 * slope])}

        return mine

    slopes = {str(slope): with_slope(slope) for slope in (0.0, 0.5, 1.0, 1.1)}
    report = check_certificate(certify(flat, data, at_the_kink), implementations=slopes)

    assert {entry.implementation for entry in report.entries if entry.verdict == "wrong"} == {"1.1"}
    assert report.context["kinks"]


def test_inputs_too_large_for_float32_are_certified_in_float64_alone() -> None:
    certificate = certify(LINEAR, gdc.Dataset([[1e60]], [1.0]), POINT)

    assert check_certificate(certificate, ["numpy"])
    with pytest.raises(
        ValueError, match=r"has nothing for float32: features hold 1e\+60, which is too large for float32"
    ):
        check_certificate(certificate, ["numpy"], dtype="float32")


def test_names_are_those_that_find_the_problem_again() -> None:
    assert name_of(LINEAR) == "linear-regression"
    assert name_of(Planes()).endswith("planes:Planes")


def test_a_certificate_survives_the_file_and_the_order_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    write(CERTIFICATE, path)

    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))

    assert read(path) == CERTIFICATE


def nudged(certificate: dict[str, Any]) -> None:
    certificate["sections"]["float64"]["targets"][7] = (1.0).hex()


@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        (changed(nudged, sign=False), "was changed or damaged: its digest is sha256:.*, not sha256:"),
        (
            changed(lambda each: each.update(version=2)),
            "is of version 2, and this gdcompare reads version 1: use a newer",
        ),
        (changed(lambda each: each.update(format="recipe")), "its format is not 'gdcompare certificate'"),
        ({}, "its format is not 'gdcompare certificate'; get the original again, or write a new one"),
        *(
            (changed(lambda each, key=key: each.pop(key)), f"the certificate lacks '{key}'; get the original again")  # type: ignore[misc]
            for key in ("version", "problem", "data", "environment", "sections")
        ),
        (changed(lambda each: each.pop("digest"), sign=False), "the certificate lacks 'digest'"),
        (changed(lambda each: each["problem"].pop("is")), "the certificate lacks 'is'"),
        (changed(lambda each: each["sections"].pop("float64")), "the certificate lacks 'float64'"),
    ],
)
def test_what_is_not_whole_is_refused_with_the_way_out(certificate: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_certificate(certificate, ["numpy"])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("params", "theta_0"), "one", "invalid hexadecimal floating-point string"),
        (("params", "theta_1"), [], "the shapes of 'theta_1' differ"),
        (("features",), [["0x1p+0"], ["0x1p+0", "0x1p+0"]], "an array is ragged"),
        (("targets",), ["0x1p+0"], r"features have the shape \(40, 1\), targets \(1,\)"),
        (("truth", "theta_0", "balls"), "0x1p0", "not enough values"),
        (("truth", "theta_0", "mid"), "0x1p+0", "a middle is not that of its ball"),
        (("truth", "theta_0", "kinks"), [True], "the shapes of 'theta_0' differ"),
        (("budgets", "by hand"), {}, "lacks 'loss'"),
    ],
)
def test_a_section_written_by_a_careless_hand_is_refused(place: tuple[str, ...], value: Any, message: str) -> None:
    def change(certificate: dict[str, Any]) -> None:
        inner: Any = certificate["sections"]["float64"]
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value

    with pytest.raises(ValueError, match=f"section 'float64' cannot be read: .*({message})"):
        check_certificate(changed(change), ["numpy"])


def test_a_number_that_is_no_float32_is_no_input_in_float32() -> None:
    certificate = changed(lambda each: each["sections"]["float32"]["params"].update(theta_0=(0.1).hex()))

    with pytest.raises(ValueError, match="a number is not a float32"):
        check_certificate(certificate, ["numpy"], dtype="float32")


@pytest.mark.parametrize("length", [0, 1, 1000, -3])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "certificate.json"
    write(CERTIFICATE, path)
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(ValueError, match=r"'certificate.json' is no certificate, or was cut short"):
        check_certificate(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(LookupError, match=r"there is no file 'none.json'"):
        check_certificate("none.json")


def test_a_backend_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="backend 'numpy' computes in float32, not float64"):
        check_certificate(CERTIFICATE, [gdc.load_backend("numpy", "float32")])


def forged(certificate: dict[str, Any], ball: str, mid: float) -> None:
    certificate["sections"]["float64"]["truth"]["theta_0"] |= {"balls": ball, "mid": mid.hex()}


def with_room(certificate: dict[str, Any]) -> None:
    certificate["sections"]["float64"]["budgets"]["by hand"]["theta_0"] = (1.0).hex()


@pytest.mark.parametrize(
    ("forgery", "verdict", "cause"),
    [
        (lambda each: forged(each, "-0xbp-1 +/- 0x1p-9", -5.5), "wrong", "the recomputed enclosure lies elsewhere"),
        (lambda each: forged(each, "-0x5p0 +/- 0x1p9", -5.0), "inconclusive", "more than twice the room"),
        (with_room, "inconclusive", "more than twice the room"),
    ],
)
def test_a_forgery_with_a_digest_that_fits_is_found_by_computing_anew(forgery: Any, verdict: str, cause: str) -> None:
    report = check_certificate(changed(forgery), [], recompute=True)

    (entry,) = [entry for entry in report.entries if entry.verdict != "agree"]
    assert (entry.implementation, entry.parameter, entry.verdict) == ("the certificate", "theta_0", verdict)
    assert cause in entry.cause


def test_a_certificate_of_weighted_data_judges_weighted_means(tmp_path: Path) -> None:
    data = gdc.Dataset([[1.0], [2.0], [4.0]], [1.0, 3.0, 2.0], weights=[1.0, 0.0, 2.5])
    path = tmp_path / "weighted.json"
    write(certify("linear-regression", data), path)

    def forgets(params: Any, features: Any, targets: Any, weights: Any) -> Any:
        return by_hand(gdc.load_problem("linear-regression"))(params, features, targets)

    right = check_certificate(path, ["numpy"], recompute=True)
    wrong = check_certificate(path, [], {"forgets": forgets})

    right.assert_agree()
    assert wrong.verdict == "wrong"


def test_a_certificate_of_what_nobody_derived_is_checked_by_those_that_differentiate() -> None:
    class Underived(gdc.Problem):
        def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
            return {"x": (1,)}

        def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return (params["x"][0] * features[:, 0] - targets) ** 2

    able = {name for name in gdc.backend_names() if not getattr(gdc.load_backend(name), "by_hand", False)}
    if not able:
        pytest.skip("no backend that is installed differentiates")
    one = Underived()
    certificate = certify(one, gdc.Dataset([[1.0], [3.0]], [2.0, 4.0]))

    report = check_certificate(certificate, problem=one)

    report.assert_agree()
    assert {entry.implementation for entry in report.entries} == able

# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet calibrate`: the homography between the cameras, from a recording of both."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_recording_arguments

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "calibrate",
        help="find the homography between the cameras from a recording",
        description="Find where the thermal image lies in the RGB image, from what both show, and "
        "write the calibration file for registration homography, with a picture beside it: the "
        "edges of RGB in green, of thermal in magenta, before and after.",
    )
    add_recording_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("calibration.yaml"),
        help="the file to write (default: calibration.yaml)",
    )
    parser.add_argument(
        "--points",
        type=Path,
        metavar="FILE",
        help="places that both cameras see, in place of the search: rgb x, rgb y, thermal x, "
        "thermal y in pixels, with commas, a line each, four at least",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=12,
        metavar="N",
        help="pairs of images to use, spread over the recording (default: 12)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    import cv2
    import numpy as np

    from ainet_ros.files import replacing, write_whole
    from ainet_ros.vision import calibration
    from ainet_ros.vision.registration import Registration
    from ainet_ros.vision.sources import frames_at, open_source
    from ainet_ros.vision.thermal import ToneMap

    picture = args.output.with_suffix(".png")
    if picture == args.output:
        raise ValueError(f"--output {args.output}: that is where the picture goes; name it .yaml")
    if args.pairs < 1:
        raise ValueError(f"--pairs {args.pairs}: there must be one at least")
    source = open_source(
        args.source, rate=args.rate, rgb_topic=args.rgb_topic, thermal_topic=args.thermal_topic
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.unique(np.linspace(0, len(source) - 1, args.pairs).round().astype(int))
    tone_map = ToneMap()
    pairs = [(f.rgb, tone_map(f.thermal)) for _, f in frames_at(source, numbers.tolist())]
    rgb, thermal = pairs[0]
    if args.points:
        points = _read_points(args.points)
        found = calibration.from_points(
            points[:, :2], points[:, 2:], rgb.shape[1::-1], thermal.shape[1::-1]
        )
    else:
        found = calibration.from_pairs(pairs)
    size = found.calibration.rgb_size
    before = calibration.picture(rgb, Registration("resize").warp(thermal, size))
    after = calibration.picture(
        rgb, Registration("homography", found.calibration).warp(thermal, size)
    )
    _, data = cv2.imencode(".png", cv2.cvtColor(np.hstack([before, after]), cv2.COLOR_RGB2BGR))
    with replacing(args.output) as path:
        found.calibration.save(path)
    write_whole(picture, data.tobytes())
    what = "points" if args.points else "parts of the image"
    print(
        f"{found.used} of {found.given} {what} agree, error {found.error:.2f} px; the thermal "
        f"image lies {found.shift:.1f} px from where registration resize puts it"
    )
    print(f"written to {args.output}; look at {picture}", file=sys.stderr)
    return 0


def _read_points(path: Path) -> npt.NDArray[np.float64]:
    import numpy as np

    try:
        points = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if points.shape[1] != 4:
        raise ValueError(
            f"{path}: a line is rgb x, rgb y, thermal x, thermal y, not {points.shape[1]} numbers"
        )
    if len(bad := np.flatnonzero(~np.isfinite(points).all(1))):
        raise ValueError(f"{path}: point {bad[0] + 1}: the numbers must be finite")
    return points

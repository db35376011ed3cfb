# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The tracker on the topics of two cameras, with RViz and a web page on request.

ros2 launch ainet_ros tracker.launch.py rgb:=/camera/image_raw thermal:=/flir/image_raw
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

CONFIG = PathJoinSubstitution([FindPackageShare("ainet_ros"), "config"])
BOOLEANS = ["true", "false"]
ARGUMENTS = [
    DeclareLaunchArgument(
        "params_file",
        default_value=PathJoinSubstitution([CONFIG, "tracker.yaml"]),
        description="Parameters of the tracker; the default file describes every one.",
    ),
    DeclareLaunchArgument(
        "weights",
        default_value="",
        description="Name of shipped weights, or path of a .safetensors or .onnx file; "
        "empty: as params_file says.",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="Where the network runs: auto, cpu, cuda or cuda:N; "
        "empty: as params_file says.",
    ),
    DeclareLaunchArgument(
        "precision",
        default_value="",
        description="Arithmetic of the network: auto, float32, bfloat16 or int8, which takes a "
        "minute or two to start; empty: as params_file says.",
    ),
    DeclareLaunchArgument(
        "rgb",
        default_value="rgb/image_raw",
        description="Topic of the RGB images; of compressed ones without /compressed.",
    ),
    DeclareLaunchArgument(
        "thermal",
        default_value="thermal/image_raw",
        description="Topic of the thermal images; of compressed ones without /compressed.",
    ),
    DeclareLaunchArgument(
        "namespace", default_value="", description="Namespace of the node and its topics."
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=BOOLEANS,
        description="Take the time from /clock: simulation, or bags played with --clock.",
    ),
    DeclareLaunchArgument(
        "record",
        default_value="",
        description="Folder to record the tracked pairs, answers and events into; empty: none.",
    ),
    DeclareLaunchArgument(
        "rviz", default_value="false", choices=BOOLEANS, description="Open RViz on the overlay."
    ),
    DeclareLaunchArgument(
        "console",
        default_value="false",
        choices=BOOLEANS,
        description="Serve the operator's web page; its log shows the address.",
    ),
    DeclareLaunchArgument(
        "console_host",
        default_value="",
        description="Address that the page is served on; 0.0.0.0: to the network, with a token. "
        "Empty: as params_file says, this host alone.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severity that the tracker logs.",
    ),
]


def tracker_ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """Killed, it is started again; else it was told to end, or cannot start."""
    return None if event.returncode < 0 else Shutdown(reason="the tracker ended")


def nodes(context: LaunchContext) -> list[Node]:
    """The nodes: params_file first, then what the arguments set."""
    params_file = LaunchConfiguration("params_file").perform(context)
    if not Path(params_file).is_file():
        # launch_ros would warn and start the node with the defaults.
        raise RuntimeError(f"params_file: no file {params_file}")
    given = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("weights", "device", "precision")
    }
    overrides = {name: value for name, value in given.items() if value}
    use_sim_time = LaunchConfiguration("use_sim_time").perform(context) == "true"
    remappings = []
    for name in ("rgb", "thermal"):
        topic = LaunchConfiguration(name).perform(context)
        for suffix in ("", "/compressed"):
            remappings.append((f"{name}/image_raw{suffix}", f"{topic}{suffix}"))
    folder, slash, _ = LaunchConfiguration("rgb").perform(context).rpartition("/")
    remappings.append(("rgb/camera_info", f"{folder}{slash}camera_info"))
    namespace = LaunchConfiguration("namespace").perform(context)
    absolute = namespace.startswith("/")
    pushed = "" if absolute else context.launch_configurations.get("ros_namespace", "")
    logger = ".".join(filter(None, f"{pushed}/{namespace}/ainet".split("/")))
    common = {
        "package": "ainet_ros",
        "namespace": namespace,
        "remappings": remappings,
        "output": "screen",
        "emulate_tty": True,
    }
    # The enclaves are those of config/sros2/policy.xml; without SROS2 they mean nothing.
    tracker = Node(
        executable="tracker_node",
        name="ainet",
        parameters=[params_file, overrides, {"use_sim_time": use_sim_time}],
        ros_arguments=[
            "--enclave",
            "/ainet",
            "--log-level",
            [f"{logger}:=", LaunchConfiguration("log_level")],
        ],
        on_exit=tracker_ended,
        respawn=True,
        respawn_delay=1.0,
        **common,
    )
    host = LaunchConfiguration("console_host").perform(context)
    console = Node(
        executable="console",
        name="console",
        ros_arguments=["--enclave", "/console"],
        parameters=[
            params_file,
            {"host": host} if host else {},
            {"use_sim_time": use_sim_time},
        ],
        condition=IfCondition(LaunchConfiguration("console")),
        **common,
    )
    folder = LaunchConfiguration("record").perform(context)
    if not folder:
        return [tracker, console]
    recorder = Node(
        executable="recorder",
        name="recorder",
        ros_arguments=["--enclave", "/recorder"],
        parameters=[params_file, {"folder": folder, "use_sim_time": use_sim_time}],
        **common,
    )
    # First, for it is there sooner, and misses nothing of a target that init_box starts.
    return [recorder, tracker, console]


def generate_launch_description() -> LaunchDescription:
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([CONFIG, "ainet.rviz"])],
        remappings=[("/ainet/overlay", "ainet/overlay")],
        condition=IfCondition(LaunchConfiguration("rviz")),
        output="log",
    )
    # RViz first: where it is not installed launch ends, and would leave a tracker behind.
    return LaunchDescription([*ARGUMENTS, rviz, OpaqueFunction(function=nodes)])

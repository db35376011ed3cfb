# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The tracker on a recording, or a generated scene, that plays over and over.

The target is initialised from the recording's true boxes, at each start of the recording.

    ros2 launch ainet_ros demo.launch.py source:=path/to/recording rviz:=true
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

# The tracker's own arguments (weights, device, rviz, log_level, ...) pass through to it.
ARGUMENTS = [
    DeclareLaunchArgument(
        "source",
        default_value="",
        description="Recording with its first box: folder pair or video pair; "
        "empty: a generated scene.",
    ),
    DeclareLaunchArgument("rate", default_value="5.0", description="Pairs a second."),
    DeclareLaunchArgument("seed", default_value="0", description="Of the generated scene."),
    DeclareLaunchArgument(
        "namespace", default_value="", description="Namespace of the nodes and their topics."
    ),
]


def generate_launch_description() -> LaunchDescription:
    namespace = LaunchConfiguration("namespace")
    source = LaunchConfiguration("source")
    seed = LaunchConfiguration("seed")
    # The enclaves are those of config/sros2/policy.xml; without SROS2 they mean nothing.
    camera = Node(
        package="ainet_ros",
        executable="replay_camera",
        namespace=namespace,
        ros_arguments=["--enclave", "/replay_camera"],
        parameters=[
            {
                "source": ParameterValue(source, value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "seed": ParameterValue(seed, value_type=int),
                "loop": True,
            }
        ],
        output="screen",
    )
    operator = Node(
        package="ainet_ros",
        executable="demo",
        namespace=namespace,
        ros_arguments=["--enclave", "/operator"],
        arguments=["--attach", "--sequence", source, "--seed", seed],
        output="screen",
    )
    tracker = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare("ainet_ros"), "launch", "tracker.launch.py"])
        )
    )
    return LaunchDescription([*ARGUMENTS, tracker, camera, operator])

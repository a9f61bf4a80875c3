"""cluster/, as `ray up` treats it up to the first SSH connection; AWS is moto's, in memory."""

import logging
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray.autoscaler._private.providers import _get_node_provider_cls
from ray.autoscaler._private.util import prepare_config, validate_config

from ctc_ray import __version__
from ctc_ray.config.base import read_yaml

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The configuration with Ray's defaults, accepted by Ray's schema."""
    values: dict[str, Any] = yaml.safe_load((CHECKOUT / "cluster" / "aws.yaml").read_text())
    config: dict[str, Any] = prepare_config(values)
    validate_config(config)
    return config


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the key pair to ~/.ssh
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    with mock_aws():
        make_roles(Bucket="results")
        yield


def make_roles(**parameters: str) -> None:
    """Deploy cluster/iam.yaml, in place of what was deployed."""
    cloudformation = boto3.client("cloudformation", region_name=region_of_file())
    cloudformation.delete_stack(StackName="roles")
    cloudformation.create_stack(
        StackName="roles",
        TemplateBody=(CHECKOUT / "cluster" / "iam.yaml").read_text(),
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )


def region_of_file() -> str:
    values = yaml.safe_load((CHECKOUT / "cluster" / "aws.yaml").read_text())
    return str(values["provider"]["region"])


def zones_with(instance_type: str, region: str) -> set[str]:
    """The zones in which AWS offers instances of a type, by the table that moto carries."""
    offered = boto3.client("ec2", region_name=region).describe_instance_type_offerings(
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [instance_type]}],
    )
    return {offer["Location"] for offer in offered["InstanceTypeOfferings"]}


def test_every_worker_type_starts_at_none_and_has_a_limit(cluster: dict[str, Any]) -> None:
    workers = dict(cluster["available_node_types"])
    assert workers.pop(cluster["head_node_type"])["max_workers"] == 0
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers.values())
    assert sum(node["max_workers"] for node in workers.values()) == cluster["max_workers"]


def test_tasks_run_on_workers_only(cluster: dict[str, Any]) -> None:
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_nothing_is_installed_on_the_nodes(cluster: dict[str, Any]) -> None:
    names = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    assert [cluster[name] for name in names] == [[], [], []]


def test_clients_need_the_token_and_a_tunnel(cluster: dict[str, Any]) -> None:
    assert "-e RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in cluster["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]


def test_region_and_zones_and_image_registry_agree(cluster: dict[str, Any]) -> None:
    region = cluster["provider"]["region"]
    zones = cluster["provider"]["availability_zone"].split(",")
    assert [zone[:-1] for zone in zones] == [region] * len(zones)
    assert f".{region}." in cluster["docker"]["image"]
    assert f"--region {region} " in cluster["initialization_commands"][0]


def test_every_zone_offers_every_instance_type(cluster: dict[str, Any], aws: None) -> None:
    zones = set(cluster["provider"]["availability_zone"].split(","))
    lacking = {
        name: sorted(zones - zones_with(node["node_config"]["InstanceType"], region_of_file()))
        for name, node in cluster["available_node_types"].items()
    }
    assert lacking == {"head": [], "cpu": [], "gpu": []}


def test_the_regions_that_the_readme_names_offer_what_it_says(
    cluster: dict[str, Any], aws: None
) -> None:
    """`sed` puts another region into the file: its zones are called a, b and c there too."""
    types = {
        n: t["node_config"]["InstanceType"] for n, t in cluster["available_node_types"].items()
    }
    text = (CHECKOUT / "cluster" / "README.md").read_text()
    rows = re.findall(r"^\| `(g\d+\.2xlarge)` \| (.+) \|$", text, re.MULTILINE)
    named = {gpu: re.findall(r"[a-z]+-[a-z]+-\d", regions) for gpu, regions in rows}
    assert types["gpu"] in named
    assert region_of_file() in named[types["gpu"]]
    for gpu, regions in named.items():
        assert regions
        for region in regions:
            zones = {f"{region}{letter}" for letter in "abc"}
            for wanted in (types["head"], types["cpu"], gpu):
                assert zones <= zones_with(wanted, region), (region, wanted)


def allowed(action: str, arn: str) -> bool:
    """Whether a managed policy allows it; these have no conditions, and deny nothing."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatchcase(action, pattern) for pattern in as_list(statement["Action"]))
        and any(fnmatchcase(arn, pattern) for pattern in as_list(statement["Resource"]))
        for statement in statements()
    )


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements() -> list[dict[str, Any]]:
    """Those of all managed policies that the template has made."""
    iam = boto3.client("iam")
    found = []
    for policy in iam.list_policies(Scope="Local")["Policies"]:
        version = iam.get_policy_version(
            PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"]
        )
        found += version["PolicyVersion"]["Document"]["Statement"]
    return found


READING = {"s3:GetObject": "/a.jpg", "s3:ListBucket": "", "s3:GetBucketLocation": ""}
WRITING = {"s3:PutObject": "/a.jpg", "s3:DeleteObject": "/a.jpg", "s3:AbortMultipartUpload": "/a"}


@pytest.mark.parametrize("images", [None, "photos-of-others"])
def test_nodes_write_one_bucket_and_may_read_a_second_one(aws: None, images: str | None) -> None:
    if images is not None:
        make_roles(Bucket="results", ImagesBucket=images)
    for action, name in {**READING, **WRITING}.items():
        assert allowed(action, f"arn:aws:s3:::results{name}")
        assert not allowed(action, f"arn:aws:s3:::another{name}")
    for action, name in READING.items():
        assert allowed(action, f"arn:aws:s3:::photos-of-others{name}") == (images is not None)
    for action, name in WRITING.items():
        assert not allowed(action, f"arn:aws:s3:::photos-of-others{name}")


def test_both_roles_have_every_managed_policy() -> None:
    """moto makes the policies of a template, and does not attach them."""

    class Loader(yaml.SafeLoader):
        pass

    def value(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)  # type: ignore[arg-type]

    Loader.add_multi_constructor("!", value)
    resources = yaml.load((CHECKOUT / "cluster" / "iam.yaml").read_text(), Loader)["Resources"]
    policies = {n: r for n, r in resources.items() if r["Type"] == "AWS::IAM::ManagedPolicy"}
    wanted = [
        [policy["Condition"], name, "AWS::NoValue"] if "Condition" in policy else name
        for name, policy in policies.items()
    ]
    roles = [r for r in resources.values() if r["Type"] == "AWS::IAM::Role"]
    assert [role["Properties"]["ManagedPolicyArns"] for role in roles] == [wanted] * 2


def test_nodes_run_the_image_of_this_version(cluster: dict[str, Any]) -> None:
    assert cluster["docker"]["image"].endswith(f"/ctc-ray:{__version__}")


def test_the_image_has_an_exact_version_of_everything_the_package_needs() -> None:
    pins = (CHECKOUT / ".ci" / "constraints.txt").read_text().splitlines()
    exact = {canonicalize_name(pin.split("==")[0]) for pin in pins if "==" in pin}
    assert all("==" in pin for pin in pins if not pin.startswith("#"))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert needed | {"boto3"} <= exact


def test_aws_has_the_instances_with_the_resources_written(
    cluster: dict[str, Any], aws: None
) -> None:
    provider = _get_node_provider_cls(cluster["provider"])
    written = {name: node["resources"] for name, node in cluster["available_node_types"].items()}
    for node in cluster["available_node_types"].values():
        node["resources"] = {}
    known = provider.fillout_available_node_types_resources(cluster)["available_node_types"]
    for name in ("cpu", "gpu"):
        assert known[name]["resources"].items() >= written[name].items()


def test_aws_starts_a_node_of_every_type_with_the_roles_of_the_template(
    cluster: dict[str, Any], aws: None
) -> None:
    provider_class = _get_node_provider_cls(cluster["provider"])
    config = provider_class.bootstrap_config(cluster)
    provider = provider_class(config["provider"], config["cluster_name"])
    types = config["available_node_types"].values()
    for node in types:
        (instance,) = provider.create_node(node["node_config"], {}, 1).values()
        assert instance.instance_type == node["node_config"]["InstanceType"]
        profile = node["node_config"]["IamInstanceProfile"]["Name"]
        assert instance.iam_instance_profile["Arn"].endswith(f"/{profile}")


def test_gpu_jobs_fit_the_gpu_nodes(cluster: dict[str, Any]) -> None:
    node = cluster["available_node_types"]["gpu"]
    train = read_yaml(str(CHECKOUT / "jobs" / "train.yaml"))
    tune = read_yaml(str(CHECKOUT / "jobs" / "tune.yaml"))
    predict = read_yaml(str(CHECKOUT / "jobs" / "predict.yaml"))
    for job in (train, tune["train"]):
        assert job["gpu_per_worker"] <= node["resources"]["GPU"]
        assert job["cpu_per_worker"] < node["resources"]["CPU"]
    n_gpus = node["max_workers"] * node["resources"]["GPU"]
    assert train["workers"] * train["gpu_per_worker"] <= n_gpus
    assert predict["workers"] * predict["gpu_per_worker"] <= n_gpus
    assert tune["concurrent_trials"] * tune["train"]["gpu_per_worker"] <= n_gpus

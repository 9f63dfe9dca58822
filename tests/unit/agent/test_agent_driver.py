"""What is read through the real nvidia-ml-py, from a library that stands in for the driver's."""

from collections.abc import Iterator

import pytest

from berth.agent.driver import LOST_RETRY, Driver, DriverExchangedError
from berth.agent.readings import Device, DriverReading, DriverTrouble, Memory, Process
from support import nvml_standin
from support.kube import eventually
from support.nvml_standin import Gpu, Node, Part

MIB = 2**20


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(clock: Clock) -> Iterator[Driver]:
    made = Driver(nvml_standin.library(), clock)
    yield made
    made.close()


def read(driver: Driver) -> DriverReading:
    found = driver.read()
    assert isinstance(found, DriverReading), found
    return found


def only(driver: Driver) -> Device:
    (device,) = read(driver).devices
    return device


def test_everything_that_a_gpu_tells_is_read(node: Node, driver: Driver) -> None:
    node.gpus = [Gpu("GPU-a", memory=(81559, 2048, 614), processes={41: 1500, 42: 500}, xids=[])]
    node.gpus[0].figures |= {"utilisation": 97, "temperature": 61, "power": 412345, "ecc": 2, "recovery": 4}
    node.write()
    found = read(driver)
    assert (found.version, found.cuda) == ("580.65.06", "13.0")
    assert found.devices == (
        Device(
            uuid="GPU-a",
            product="NVIDIA H100 80GB HBM3",
            index=0,
            minor=0,
            memory=Memory(81559 * MIB, 2048 * MIB, 614 * MIB),
            utilisation=97,
            temperature=61,
            power_milliwatts=412345,
            ecc_errors=2,
            recovery=4,
            processes=(Process(41, 1500 * MIB), Process(42, 500 * MIB)),
        ),
    )


def test_memory_and_processes_are_read_anew_each_time(node: Node, driver: Driver) -> None:
    node.gpus = [Gpu(memory=(81559, 4, 614))]
    node.write()
    assert only(driver).memory == Memory(81559 * MIB, 4 * MIB, 614 * MIB)
    node.gpus = [Gpu(memory=(81559, 70000, 614), processes={7: 69000})]
    node.write()
    assert only(driver).memory == Memory(81559 * MIB, 70000 * MIB, 614 * MIB)
    assert only(driver).processes == (Process(7, 69000 * MIB),)


def test_what_a_gpu_does_not_support_is_unknown_and_the_rest_is_read(node: Node, driver: Driver) -> None:
    node.gpus = [
        Gpu("GPU-a", "NVIDIA GB10", memory=None, processes={7: None}, figures={"temperature": 40}, events=False)
    ]
    node.write()
    device = only(driver)
    assert device.memory is None, "it uses the node's memory"
    assert (device.utilisation, device.power_milliwatts, device.ecc_errors, device.recovery) == (None,) * 4
    assert device.temperature == 40
    assert device.processes == (Process(7, None),)


def test_older_drivers_count_their_own_share_as_used(node: Node, driver: Driver) -> None:
    node.gpus = [Gpu(memory=(16000, 300))]
    node.write()
    assert only(driver).memory == Memory(16000 * MIB, 300 * MIB, None)


def test_a_process_that_computes_and_draws_counts_once(node: Node, driver: Driver) -> None:
    node.gpus = [Gpu(processes={7: 1000, 8: None}, drawing={7: 1000, 8: 20, 9: 30})]
    node.write()
    assert only(driver).processes == (Process(7, 1000 * MIB), Process(8, 20 * MIB), Process(9, 30 * MIB))


def test_mig_devices_have_entries_of_their_own_behind_their_gpu(node: Node, driver: Driver) -> None:
    parts = [Part("MIG-1", "1g.10gb", processes={7: 900}), Part("MIG-2", "3g.40gb", memory=(40448, 44))]
    node.gpus = [Gpu("GPU-a", parts=parts), Gpu("GPU-b")]
    node.write()
    whole, first, second, other = read(driver).devices
    assert (whole.mig, whole.processes, other.mig) == (True, (), False)
    assert (first.parent, first.profile, first.product) == ("GPU-a", "1g.10gb", "NVIDIA H100 80GB HBM3")
    assert first.processes == (Process(7, 900 * MIB),)
    assert (second.uuid, second.memory) == ("MIG-2", Memory(40448 * MIB, 44 * MIB, None))


def test_a_gpu_that_is_lost_says_so_and_the_others_go_on(node: Node, driver: Driver) -> None:
    node.gpus = [Gpu("GPU-a"), Gpu("GPU-b"), Gpu("GPU-c")]
    node.write()
    assert not any(device.lost for device in read(driver).devices)
    node.gpus[1].lost = True
    node.write()
    first, second, third = read(driver).devices
    assert "lost" in (second.lost or "").lower()
    assert (first.lost, third.lost) == (None, None)
    assert first.memory is not None


def test_a_gpu_that_was_lost_before_the_agent_began_has_a_number_and_no_name(node: Node, driver: Driver) -> None:
    node.gpus = [Gpu("GPU-a"), Gpu("GPU-b", nameless=True)]
    node.write()
    second = read(driver).devices[1]
    assert (second.uuid, second.index) == ("", 1)
    assert second.lost


def test_a_gpu_that_was_reset_is_seen_after_a_fresh_start(node: Node, driver: Driver, clock: Clock) -> None:
    node.gpus = [Gpu("GPU-a", lost=True)]
    node.write()
    assert only(driver).lost
    node.gpus[0].lost = False
    node.write()
    assert only(driver).lost, "the driver shows it only to who starts anew"
    clock.now += LOST_RETRY
    assert only(driver).lost is None


def test_a_node_without_a_driver_says_so(node: Node, driver: Driver) -> None:
    node.start = 9
    node.write()
    found = driver.read()
    assert isinstance(found, DriverTrouble)
    assert found.reason == "DriverNotLoaded"


def test_a_driver_is_tried_again_later_and_later(node: Node, driver: Driver, clock: Clock) -> None:
    node.start = 9
    node.write()
    driver.read()
    node.start = 0
    node.gpus = [Gpu()]
    node.write()
    assert isinstance(driver.read(), DriverTrouble), "not before its time"
    clock.now += 1
    assert only(driver).uuid == "GPU-0"


def test_a_driver_that_restarts_is_started_anew(node: Node, driver: Driver, clock: Clock) -> None:
    node.gpus = [Gpu()]
    node.write()
    read(driver)
    node.boot += 1
    node.write()
    assert isinstance(driver.read(), DriverTrouble)
    clock.now += 1
    assert only(driver).uuid == "GPU-0"


def test_a_driver_that_was_exchanged_ends_the_process(node: Node, driver: Driver, clock: Clock) -> None:
    node.gpus = [Gpu()]
    node.write()
    read(driver)
    node.start = 18
    node.write()
    with pytest.raises(DriverExchangedError, match="restart the Pod"):
        driver.read()


def test_a_container_that_began_with_the_wrong_library_idles(node: Node, driver: Driver) -> None:
    node.start = 18
    node.write()
    found = driver.read()
    assert isinstance(found, DriverTrouble)
    assert found.reason == "DriverExchanged"


def test_xid_errors_are_heard_of(node: Node, driver: Driver) -> None:
    node.gpus = [Gpu("GPU-a"), Gpu("GPU-b")]
    node.write()
    read(driver)
    node.gpus[1].xids = [31, 79]
    node.write()
    eventually(lambda: len(driver.xids.latest("GPU-b")) == 2, 5, "both errors")
    first, second = read(driver).devices
    assert [xid.number for xid in second.xids] == [31, 79]
    assert first.xids == ()
    assert driver.xids.counts() == {("GPU-b", 31): 1, ("GPU-b", 79): 1}


def test_a_restarted_driver_forgets_errors_but_not_their_number(node: Node, driver: Driver, clock: Clock) -> None:
    node.gpus = [Gpu("GPU-a", xids=[79])]
    node.write()
    read(driver)
    eventually(lambda: driver.xids.latest("GPU-a"), 5, "the error")
    node.boot += 1
    node.write()
    driver.read()
    clock.now += 1
    assert only(driver).xids == ()
    assert driver.xids.counts() == {("GPU-a", 79): 1}

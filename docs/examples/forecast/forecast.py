"""Learn from the history how much energy each meter takes, and store a forecast of the day after the last reading.

``python forecast.py mqtt://HOST:PORT``, with SOFIA2_DATA, SOFIA2_USER and SOFIA2_PASSWORD in the environment.

A linear regression on the time of the day and of the week. Ray Data reads the history in parallel and turns each block of
rows into the two sums that the regression needs, so the readings themselves never come together in one place.
"""

# ruff: noqa: D103, S105

import asyncio
import sys
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import ray

import sofia2.bdh
from sofia2.kp import KP, Insert

TOKEN = "forecast000000000000000000000001"
METER, AT, KWH = "Reading.meter", "Reading.at", "Reading.kWh"
HARMONICS = 3
TEST_DAYS = 7
"""The last days, which are not learnt from: what is forecast for them tells how good the forecast is."""


def features(at):
    """A row per moment: the day's harmonics, once for working days and once for weekends."""
    hours = at.astype("datetime64[h]").astype(np.int64)
    angle = 2 * np.pi * (hours % 24) / 24
    waves = [np.ones_like(angle)]
    for n in range(1, HARMONICS + 1):
        waves += [np.sin(n * angle), np.cos(n * angle)]
    of_day = np.stack(waves, axis=1)
    is_weekend = ((hours // 24 + 3) % 7 >= 5)[:, None]  # 1970-01-01 was a Thursday
    return np.hstack([of_day * ~is_weekend, of_day * is_weekend])


def sums(rows: pa.Table) -> pa.Table:
    """For each meter of some rows, what a regression needs to know of them."""
    meters = np.array(rows[METER].to_pylist())
    x, y = features(rows[AT].to_numpy()), rows[KWH].to_numpy()
    found = []
    for meter in np.unique(meters):
        mine = meters == meter
        found.append({"meter": str(meter), "xx": (x[mine].T @ x[mine]).ravel(), "xy": x[mine].T @ y[mine]})
    return pa.Table.from_pylist(found)


def learn(days):
    """The coefficients of each meter."""
    totals = {}
    for row in days.map_batches(sums, batch_format="pyarrow").iter_rows():
        xx, xy = totals.get(row["meter"], (0, 0))
        totals[row["meter"]] = xx + np.asarray(row["xx"]), xy + np.asarray(row["xy"])
    return {meter: np.linalg.lstsq(xx.reshape(len(xy), -1), xy, rcond=None)[0] for meter, (xx, xy) in totals.items()}


def main(url):
    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    last = sofia2.bdh.sql("select max(Reading.at) as last from EnergyReading")["last"][0].as_py()
    split = last - timedelta(days=TEST_DAYS)
    columns = [METER, AT, KWH]
    models = learn(sofia2.bdh.dataset("EnergyReading", columns=columns, where=f"Reading.at <= '{split}'"))

    test = sofia2.bdh.table("EnergyReading", columns=columns, where=f"Reading.at > '{split}'")
    meters, y = np.array(test[METER].to_pylist()), test[KWH].to_numpy()
    x = features(test[AT].to_numpy())
    errors = {m: float(np.abs(x[meters == m] @ models[m] - y[meters == m]).mean()) for m in sorted(models)}

    hours = [last + timedelta(hours=n) for n in range(1, 25)]
    ahead = features(np.array(hours, dtype="datetime64[ms]"))
    stored = asyncio.run(store(url, forecasts(hours, ahead, models, errors)))
    for meter, error in errors.items():
        mean = y[meters == meter].mean()
        print(
            f"{meter:10} mean {mean:6.2f} kWh   error of the last {TEST_DAYS} days {error:5.2f} kWh ({error / mean:.0%})"
        )
    print(f"{stored} forecasts from {hours[0]:%Y-%m-%d %H:%M} on")


def forecasts(hours: list[datetime], ahead, models, errors):
    for meter, model in sorted(models.items()):
        for at, kwh in zip(hours, ahead @ model, strict=True):
            yield {
                "Forecast": {"meter": meter, "at": at, "kWh": round(float(kwh), 3), "error": round(errors[meter], 3)}
            }


async def store(url, instances):
    async with KP(url, "KPForecast:daily", token=TOKEN) as kp:
        result = await kp.bulk([Insert("EnergyForecast", each) for each in instances])
    assert not result.errors, result.errors[0]
    return len(result.inserted)


if __name__ == "__main__":
    main(sys.argv[1])

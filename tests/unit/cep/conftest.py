"""Shared by the tests of the CEP engine: running rules, the sixteen example rules, and events of all kinds."""

import pytest

from sib.cep import compile_rules

MINUTE = 60_000

EXAMPLE_RULES = """
from TallerEvento[TALLER__TIPO="TEMPERATURA" AND TALLER__TEMPERATURA > 30]
select TALLER__TEMPERATURA as VALOR, TALLER__UBICACION as UBICACION insert into TallerRegla;
from not Lectura for 1 day partition by sensor in Sensores.id
select sensor, lastEventTime() as ultima insert into SensorMudo; -- has not arrived in 1 day
from every a=SensorMudo -> b=Lectura within 30 days partition by sensor
select b.sensor, b.ts - a.ts as mudo insert into SensorRecuperado;
from Lectura#window.time(5 min) select sensor, avg(temp) as media, count() as n group by sensor
having avg(temp) > 30 and count() >= 3 output on change insert into MediaAlta;
from Lectura#hop(10 min, 1 min) select zona, max(temp) as mx, min(temp) as mn group by zona insert into ResumenZona;
from every e1=Lectura -> e2=Lectura[temp >= e1.temp + 5] within 10 min partition by sensor
select e1.sensor as sensor, e1.temp as t0, e2.temp as t1 insert into SubidaRapida;
from every a=Lectura[temp > 40]<3> within 1 min partition by sensor
select a[0].sensor as sensor, a[last].temp as ultima insert into TresSeguidas;
from every a=Puerta[estado="abierta"] -> not Puerta[estado="cerrada"] for 15 min partition by puerta
select a.puerta as puerta, a.ts as desde insert into PuertaAbierta;
from every a=Bomba[on == true] -> (not Presion[bar > 2] for 30 sec) partition by instalacion
select a.instalacion insert into BombaSinPresion;
from Gps#session(5 min) select matricula, count() as puntos, max(velocidad) as vmax, avg(velocidad) as vmed
group by matricula insert into Trayecto;
from Temperatura#time(1 min) as t join Humedad#time(1 min) as h on t.sala == h.sala
select t.sala as sala, t.valor as temp, h.valor as hum insert into Confort;
from Lectura as l join Umbrales as u on l.sensor == u.sensor and l.temp > u.maximo
select l.sensor, l.temp, u.maximo insert into SobreUmbral;
from Alarma#lengthBatch(100) select tipo, count() as n group by tipo order by n desc limit 5
output first every 1 hour insert into TopAlarmas;
from every (a=Caida[gw="A"] and b=Caida[gw="B"]) within 2 min select a.ts as ta, b.ts as tb insert into CaidaDoble;
@watermark(delay="30 sec", late="side") from Contador#timeBatch(1 hour) partition by edificio, planta
select edificio, planta, max(kwh) - min(kwh) as consumo group by edificio, planta having consumo > 10
insert into ConsumoHora;
from every a=Precio, b=Precio[precio < a.precio]+, c=Precio[precio > b[last].precio] within 1 hour partition by valor
select a.precio as p0, b[last].precio as pmin, c.precio as p1 insert into FormaV
"""


def run_rules(rules, events, *, until=None, batch=None, **options):
    """Outputs as (stream, ts, data), with the events in batches of a size; None = one batch."""
    engine = compile_rules(rules, **options)
    size = batch or max(1, len(events))
    outputs = []
    for start in range(0, len(events), size):
        outputs += engine.send_batch(events[start : start + size])
    if until is not None:
        outputs += engine.advance(until)
    return [(output.stream, output.ts_ms, output.data) for output in outputs]


@pytest.fixture(scope="session")
def run():
    return run_rules


@pytest.fixture
def example_rules():
    return EXAMPLE_RULES

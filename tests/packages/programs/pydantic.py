# projects: pydantic pydantic-core annotated-types typing-extensions typing-inspection
from datetime import date
from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator


class Pet(BaseModel):
    kind: Literal["cat", "dog"]
    name: Annotated[str, Field(min_length=2)]
    born: date

    @field_validator("name")
    @classmethod
    def capital(cls, value: str) -> str:
        return value.title()


class Owner(BaseModel):
    pets: list[Pet] = []
    age: int = Field(gt=0)


owner = Owner.model_validate_json(
    '{"age": "41", "pets": [{"kind": "cat", "name": "tom", "born": "2020-02-29"}]}'
)
print(owner, owner.model_dump_json(), pydantic.VERSION)
try:
    Owner.model_validate({"age": -1, "pets": [{"kind": "cow", "name": "x", "born": "never"}]})
except ValidationError as error:
    print(error.json(include_url=False))
print(
    Owner.model_json_schema(),
    TypeAdapter(dict[str, tuple[int, ...]]).validate_python({"a": ["1", 2]}),
)

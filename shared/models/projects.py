"""Projects: they group prompts, datasets and runs."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified


class Project(Identified, Base):
    __tablename__ = "projects"
    __table_args__ = (sa.UniqueConstraint("workspace_id", "name"),)

    name: Mapped[str] = mapped_column(sa.String(128))
    description: Mapped[str] = mapped_column(default="")
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())

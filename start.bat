@echo off
rem Opens LoRA Studio: double-click it.
cd /d "%~dp0"
set "PYTHON="
for %%p in ("py -3" "python" "python3") do if not defined PYTHON (
    %%~p -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>nul && set "PYTHON=%%~p"
)
if not defined PYTHON (
    echo LoRA Studio needs Python 3.11 or newer.
    echo Install it from https://www.python.org/downloads/, then open this again.
    pause
    exit /b 1
)
%PYTHON% app.py %*
if errorlevel 1 pause
